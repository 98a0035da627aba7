"""The tokenizer of a model directory, for prompts that strangers wrote.

Imports neither torch nor transformers. Gateway, rollout, reward and training all tokenise prompts here, so a prompt has
the same tokens everywhere.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from onlinerlhf.core.errors import ConfigError

# Stands for a text while the template is rendered. Private-use characters: no template holds them.
_SENTINEL = "\ue000text\ue001"


class PromptTokenizer:
    """Encodes prompts with the directory's chat template, and decodes responses. Safe to share between threads.

    The user's text is data: special tokens spelled out in it become ordinary text, so nobody can end their own turn.
    """

    def __init__(
        self,
        *,
        template: Tokenizer,
        text: Tokenizer,
        render: Callable[[tuple[str, ...]], list[str]],
        eos: int,
        pad: int,
    ) -> None:
        self._template = template
        self._text = text
        self._render = render
        self._prefix, self._suffix = self._around(("user",))
        self.eos_token_id = eos
        self.pad_token_id = pad

    @classmethod
    def load(cls, model_dir: Path | str) -> Self:
        """Reads tokenizer.json, tokenizer_config.json and the chat template of a transformers directory."""
        directory = Path(model_dir)
        source = _read(directory / "tokenizer.json")
        config = json.loads(_read(directory / "tokenizer_config.json"))
        template = Tokenizer.from_str(source)
        _unlimited(template)
        chat_template = _chat_template(directory, config)
        eos = _token_id(template, config, "eos_token")
        if eos is None:
            raise ConfigError(f"{directory}/tokenizer_config.json names no eos_token that the tokenizer knows")
        pad = _token_id(template, config, "pad_token")
        return cls(
            template=template,
            text=_plain_text_tokenizer(source),
            render=lru_cache(maxsize=128)(lambda roles: _render(chat_template, config, roles)),
            eos=eos,
            pad=eos if pad is None else pad,
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self._template.get_vocab_size(with_added_tokens=True))

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of the chat template around the user's text, up to where the response starts."""
        return [*self._prefix, *self.encode_text(text), *self._suffix]

    def encode_chat(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation, (role, text) by turns, up to where the response starts.

        ConfigError where the template does not take these roles in this order.
        """
        before, *after = self._around(tuple(role for role, _ in turns))
        ids = list(before)
        for (_, text), between in zip(turns, after, strict=True):
            ids += [*self.encode_text(text), *between]
        return ids

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_prompt` of each. Other threads may run meanwhile."""
        encodings = self._text.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*self._prefix, *encoding.ids, *self._suffix] for encoding in encodings]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text; nothing in it is special."""
        # Without offsets it is a quarter faster.
        (encoding,) = self._text.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)

    def count(self, text: str) -> int:
        """Number of tokens of the user's text alone."""
        return len(self.encode_text(text))

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        """Text of token ids."""
        return str(self._template.decode(ids, skip_special_tokens=skip_special))

    def _around(self, roles: tuple[str, ...]) -> list[list[int]]:
        """Token ids of the chat template before, between and after texts of these roles."""
        return [list(self._template.encode(part, add_special_tokens=False).ids) for part in self._render(roles)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _unlimited(tokenizer: Tokenizer) -> None:
    """A saved padding or truncation setting would silently change a prompt."""
    tokenizer.no_padding()
    tokenizer.no_truncation()


def _plain_text_tokenizer(source: str) -> Tokenizer:
    """A copy that takes no added token at its word, not even those marked as not special."""
    described = json.loads(source)
    for token in described.get("added_tokens", ()):
        token["special"] = True
    tokenizer = Tokenizer.from_str(json.dumps(described))
    _unlimited(tokenizer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _chat_template(directory: Path, config: dict[str, Any]) -> str:
    file = directory / "chat_template.jinja"
    if file.exists():
        return _read(file)
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not isinstance(template, str):
        raise ConfigError(f"{directory} has no chat template (chat_template.jinja or in tokenizer_config.json)")
    return template


def _render(template: str, config: dict[str, Any], roles: tuple[str, ...]) -> list[str]:
    """The rendered template before, between and after one text of each role."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _refuse
    names = {name: _content(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    try:
        rendered = environment.from_string(template).render(
            messages=[{"role": role, "content": _SENTINEL} for role in roles],
            add_generation_prompt=True,
            **{name: content for name, content in names.items() if content is not None},
        )
    except TemplateError as error:
        raise ConfigError(f"the chat template does not render the roles {', '.join(roles)}: {error}") from error
    parts = rendered.split(_SENTINEL)
    if len(parts) != len(roles) + 1:
        expected = f"{len(roles)} times" if len(roles) > 1 else "once"
        raise ConfigError(f"the chat template shows the messages {len(parts) - 1} times, expected {expected}")
    return parts


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _content(token: object) -> str | None:
    """A token is written as a string, or as an object with its content."""
    if isinstance(token, dict):
        return str(token["content"])
    return token if isinstance(token, str) else None


def _token_id(tokenizer: Tokenizer, config: dict[str, Any], name: str) -> int | None:
    content = _content(config.get(name))
    return None if content is None else tokenizer.token_to_id(content)
