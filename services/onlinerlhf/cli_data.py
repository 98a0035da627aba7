"""`onlinerlhf data …`: what is held of people's data, snapshots of it, and the rights of those it is from."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onlinerlhf.cli_keys import target_options

F = TypeVar("F", bound=Callable[..., Any])

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def user_options(command: F) -> F:
    """Whom, and which gateway to ask."""
    for option in (
        click.option("--gateway", "address", help="host:port of a gateway.  [default: of the platform that is up]"),
        click.option("--ca", type=_FILE, help="The gateway speaks TLS: PEM of whom to trust.  [default: plain text]"),
        click.option("--server-name", help="With --ca: name in its certificate, where --gateway goes by another."),
        click.option("--run-dir", type=_DIRECTORY, help="Run directory.  [default: the newest under HOME/runs]"),
        click.option(
            "--home",
            type=_DIRECTORY,
            default=Path(".onlinerlhf"),
            envvar="ONLINERLHF_HOME",
            show_default=True,
            help="Directory of models and runs.",
        ),
        click.option("--organisation", default="", help="Of the keys that the user came with.  [default: none]"),
        click.option("--user", "user_id", required=True, help="The user's id, as clients sent it."),
    ):
        command = option(command)
    return command


@click.group()
def data() -> None:
    """What the platform holds of people's data: counts, snapshots for training, and their rights over it.

    \b
      onlinerlhf data stats
      onlinerlhf data export --out snapshot
      onlinerlhf data user --user ada > ada.jsonl
      onlinerlhf data erase --user ada
      onlinerlhf data verify --user ada
    """


@data.command()
@target_options
@click.option("--json", "json_output", is_flag=True, help="For programs.")
def stats(home: Path, run_dir: Path | None, redis_url: str | None, run: str | None, json_output: bool) -> None:
    """Count prompts by verdict, split, use case and tenant; the ledger; and what each store takes up.

    \b
      onlinerlhf data stats
      onlinerlhf data stats --json | jq .stores
    """
    from onlinerlhf.local import data as command

    command.show_stats(command.find_source(home, run_dir, redis_url=redis_url, run=run), json_output=json_output)


@data.command()
@target_options
@click.option("--out", required=True, type=_DIRECTORY, help="Where to: a directory that does not exist yet.")
@click.option(
    "--prompts-per-user",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Those with the lowest hashes.",
)
@click.option(
    "--similarity",
    default=0.7,
    show_default=True,
    type=click.FloatRange(0.0, 1.0, min_open=True),
    help="Jaccard similarity of 5-character shingles from which the later of two prompts is left out.",
)
def export(
    home: Path,
    run_dir: Path | None,
    redis_url: str | None,
    run: str | None,
    out: Path,
    prompts_per_user: int,
    similarity: float,
) -> None:
    """Write prompts, answers, feedback and comparisons as Parquet, with a manifest of counts, rules and digests.

    Whoever was erased or withdrew consent is left out. The same data give the same bytes. The files hold what people
    wrote, and erasing a user later does not reach them: export anew, and delete the old snapshot.

    \b
      onlinerlhf data export --out snapshot
      onlinerlhf train reward --model sft --data snapshot/comparisons.parquet --out reward
      onlinerlhf data export --out snapshot --redis-url redis://127.0.0.1:6379/0 --run production
    """
    from onlinerlhf.gateway.snapshot.near_duplicates import NearDuplicateRule
    from onlinerlhf.gateway.snapshot.rules import SnapshotRules
    from onlinerlhf.local import data as command

    rules = SnapshotRules(prompts_per_user=prompts_per_user, near_duplicates=NearDuplicateRule(threshold=similarity))
    command.export(command.find_source(home, run_dir, redis_url=redis_url, run=run), out, rules=rules)


@data.command()
@user_options
def user(organisation: str, user_id: str, **place: Any) -> None:
    """Print everything held of a user, a JSON object a line.

    \b
      onlinerlhf data user --user ada > ada.jsonl
    """
    from onlinerlhf.local import data_rights

    data_rights.export_user(data_rights.Place(**place), organisation=organisation, user_id=user_id)


@data.command()
@user_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(organisation: str, user_id: str, yes: bool, **place: Any) -> None:
    """Erase a user everywhere and print the receipt: what was removed, which policy versions saw the user's samples.

    Cannot be undone. Needs a key of scope admin: ONLINERLHF_ADMIN_KEY, or that of the platform that is up here.

    \b
      onlinerlhf data erase --user ada
      onlinerlhf data erase --user ada --organisation acme --yes
    """
    if not yes:
        of = f" of {organisation}" if organisation else ""
        click.confirm(f"Erase everything of user {user_id}{of}? This cannot be undone.", abort=True)
    from onlinerlhf.local import data_rights

    data_rights.erase(data_rights.Place(**place), organisation=organisation, user_id=user_id)


@data.command()
@user_options
def verify(organisation: str, user_id: str, **place: Any) -> None:
    """Look through every store anew for anything of an erased user. Exits with 1 when something is left.

    \b
      onlinerlhf data verify --user ada
    """
    from onlinerlhf.local import data_rights

    if not data_rights.verify(data_rights.Place(**place), organisation=organisation, user_id=user_id):
        sys.exit(1)
