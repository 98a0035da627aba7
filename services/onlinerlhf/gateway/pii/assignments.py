"""Secrets that only a name before them betrays: `password=`, `api_key:`, `Authorization: Bearer`. Pure and linear.

Source code is full of such names, so the value decides: random enough for a key, mixed enough for a password, and
neither a call, nor a variable, nor something to be filled in.
"""

import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import has_before, words
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of
from onlinerlhf.gateway.pii.secrets import entropy, is_template
from onlinerlhf.gateway.pii.windows import Windows, longest

_NAMES_OF_PASSWORDS = (
    r"(?:pass(?:word|wd|phrase|wort|code)?|pwd|psw|kennwort|contrase[nñ]a|mot de passe|mdp|senha|clave|"
    r"密码|口令|パスワード|pw)"
)
_NAMES_OF_KEYS = (
    r"(?:api[_\- ]?key|apikey|secret(?:[_\- ]?access)?(?:[_\- ]?key)?|access[_\- ]?key(?:[_\- ]?id)?|"
    r"auth[_\- ]?key|account[_\- ]?key|"
    r"(?:access|auth|api|bearer|refresh|bot|session|id|personal access|deploy)?[_\- ]?token|client[_\- ]?secret|"
    r"app[_\- ]?secret|shared[_\- ]?secret|signing[_\- ]?secret|private[_\- ]?key|encryption[_\- ]?key|"
    r"subscription[_\- ]?key|"
    r"credentials?|license[_\- ]?key|密钥|令牌|x-api-key)"
)
_SIGN = (
    r"[\"'`*]{0,3}[ ]{0,3}(?::=|=>|==|=|:|->|(?<=[ ])(?:is|was|are|ist|est|es|é)(?=[ :])|是|为|は)[ ]{0,3}[:]?[ ]{0,2}"
)
# Chinese and Japanese end a value: there is no space before them.
_VALUE = r"([\"'`]{0,3})([^\s\"'`<>|\u3000-\u9fff]{6,512})"
_PASSWORD = re.compile(rf"{_NAMES_OF_PASSWORDS}{_SIGN}{_VALUE}", re.IGNORECASE)
_KEY = re.compile(rf"{_NAMES_OF_KEYS}{_SIGN}{_VALUE}", re.IGNORECASE)
_BEARER = re.compile(r"(?:bearer|basic|token)[ ]{1,3}()([A-Za-z0-9_\-.~+/=]{16,2048})", re.IGNORECASE)
_HEADER = re.compile(r"authorization[\"']?[ ]?[:=]", re.IGNORECASE)
_CURL_USER = re.compile(r"(?:-u|--user)[ ][\"']?[A-Za-z0-9._@\-]{1,64}():([^\s\"'<>]{6,128})")
# Forty characters of base 64 that hang on no name.
_AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=_\-.])()([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=_\-.])")
_AWS_CUE = words("aws", "secret", "amazon")
_FLAG = re.compile(r"--?(?:password|passwd|token|api-key|secret)[ =]()([^\s\"'<>]{6,256})", re.IGNORECASE)

_PASSWORD_WORDS = (
    "pwd", "psw", "kennwort", "contrase", "mdp", "senha", "clave", "密码", "口令", "パスワード", "pw",
)  # fmt: skip
_KEY_WORDS = ("key", "secret", "token", "credential", "密钥", "令牌")
_AWS_LENGTH = 40
WORDS = (*_PASSWORD_WORDS, *_KEY_WORDS, "authorization", "bearer ")
PATTERN = r"pass(?:word|wd|phrase|wort|code|e)?[\"'`*]{0,3}[ ]{0,3}(?:[:=是为は]|->|(?<=[ ])(?:[iı]s|was|are|es|é))"
"""A passage is no pass. Of lower-case text, in which a dotless i is left and counts as an i."""
_NAMES_PASSWORD, _NAMES_KEY = any_of(_PASSWORD_WORDS, PATTERN), any_of(_KEY_WORDS)
_CODE = re.compile(
    r"[(){}\[\]]|^[A-Za-z_][A-Za-z_.]*$|::|->|^(?:https?|file)://|^[A-Za-z_]+\.[A-Za-z_.]+|^(?:\.\.?)?/"
    r"|\\$|^[0-9.,]{1,6}$|^[\^~<>=v]{1,3}[0-9]+(?:\.[0-9x*]+){1,3}|%[-0-9.]{0,4}[ds]|^:"
)
_NEXT_PAIR = re.compile(r"[&;][A-Za-z_]{1,30}=")
_TRAILING = ".,;:)]}。，；"


def has_flag(text: str) -> bool:
    """Whether options of a command may be there."""
    return "-" in text and ("-u" in text or "--" in text)


def may_be_aws(windows: Windows) -> bool:
    """Whether a word is long enough for what hangs on no name."""
    return longest(windows) >= _AWS_LENGTH


def assignments(view: View) -> Iterator[Span]:
    """Values after a telling name."""
    lower, text = view.lower, view.text
    if _NAMES_PASSWORD.search(lower) is not None:
        yield from (_span(match) for match in _PASSWORD.finditer(text) if _is_password(match))
    if _NAMES_KEY.search(lower) is not None:
        yield from (_span(match) for match in _KEY.finditer(text) if _is_key(_value(match)))
    if "aws" in lower or "secret" in lower:
        yield from (_span(match) for match in _AWS_SECRET.finditer(text) if _is_aws_secret(view, match))
    if "authorization" in lower or "bearer " in lower:
        yield from (_span(match) for match in _BEARER.finditer(text) if _is_authorization(view, match))
    if has_flag(text):
        for pattern in (_CURL_USER, _FLAG):
            yield from (_span(match) for match in pattern.finditer(text) if _is_mixed(_value(match)))


def _is_aws_secret(view: View, match: re.Match[str]) -> bool:
    value = match.group(2)
    is_cased = value.lower() != value and value.upper() != value
    return is_cased and _is_key(value) and has_before(view, match.start(), _AWS_CUE)


def _is_authorization(view: View, match: re.Match[str]) -> bool:
    is_header = _HEADER.search(view.text, max(0, match.start() - 24), match.start()) is not None
    return (is_header or view.lower.startswith("bearer", match.start())) and _is_key(_value(match))


def _span(match: re.Match[str]) -> Span:
    return Kind.PASSWORD, match.start(2), match.start(2) + len(_value(match))


def _value(match: re.Match[str]) -> str:
    value = match.group(2)
    # In quotes everything is the value; outside, a further pair or the end of the sentence may follow.
    return value if match.group(1) else _NEXT_PAIR.split(value, maxsplit=1)[0].rstrip(_TRAILING)


def _is_password(match: re.Match[str]) -> bool:
    value = _value(match)
    before = match.string[max(0, match.start() - 1) : match.start()]
    if match.group()[:2].lower() == "pw" and before.isascii() and before.isalnum():
        return False
    return _is_mixed(value)


def _is_mixed(value: str) -> bool:
    """As people choose them: not one word, but letters with digits or signs, or long and random."""
    if len(value) < 6 or is_template(value) or _CODE.search(value) is not None:
        return False
    letters = sum(character.isalpha() for character in value)
    digits = sum(character.isdigit() for character in value)
    others = len(value) - letters - digits
    if digits == len(value):
        return len(set(value)) >= 4
    return len(set(value)) >= 5 and (letters > 0) + (digits > 0) + (others > 0) >= 2 and digits + others >= 1


def _is_key(value: str) -> bool:
    """As machines make them."""
    if len(value) < 16 or is_template(value) or _CODE.search(value) is not None or "your" in value.lower():
        return False
    digits = sum(character.isdigit() for character in value)
    if digits == len(value) or digits == 0:
        return False
    # One digit is what a name with a number has; a long random value may have no more.
    return entropy(value) >= (3.0 if digits >= 2 else 4.2)
