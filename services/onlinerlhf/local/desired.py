"""How many rollout workers there should be: `desired.json` in the run directory.

`onlinerlhf scale` replaces the file, `onlinerlhf up` reads it twice a second and does what is missing. Nothing is sent
from one to the other, so nothing can be lost on the way: the newest wish is the one in the file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from onlinerlhf.core.errors import ConfigError, NotFound

FILE_NAME = "desired.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asked for last."""

    num_workers: int
    id: str
    """Tells a wish from another one for the same number."""


def write(run_dir: Path, num_workers: int) -> Wish:
    """Replace the file in one step."""
    wish = Wish(num_workers=num_workers, id=uuid4().hex)
    path = run_dir / FILE_NAME
    # A name of its own: of two writers at once, the last to be done wins with a whole file.
    temporary = path.with_name(f"{FILE_NAME}.{wish.id}")
    temporary.write_text(json.dumps({"rollout_workers": wish.num_workers, "wish": wish.id}))
    temporary.replace(path)
    return wish


def read(run_dir: Path) -> Wish:
    """The newest wish. Raises NotFound or ConfigError."""
    path = run_dir / FILE_NAME
    try:
        record = json.loads(path.read_text())
        wish = Wish(num_workers=record["rollout_workers"], id=record["wish"])
    except FileNotFoundError:
        raise NotFound(f"there is no {path}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged; `onlinerlhf scale rollout N` writes it anew") from None
    if not isinstance(wish.id, str) or type(wish.num_workers) is not int or wish.num_workers < 0:
        raise ConfigError(f"{path} asks for no number of workers; `onlinerlhf scale rollout N` writes it anew")
    return wish
