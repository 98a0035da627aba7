import pytest

from onlinerlhf.core.errors import ConsentMissing, InvalidInput, OnlineRLHFError
from onlinerlhf.gateway.screens import Candidate, build_screens, pass_all


class WordEncoder:
    """One token a word, between a template's first and last token."""

    def __init__(self) -> None:
        self.num_calls = 0

    def encode_prompt(self, text: str) -> list[int]:
        self.num_calls += 1
        return [1, *(len(word) for word in text.split()), 2]


def candidate(
    raw: bytes = b"Name three fruits.", *, user_id: str = "ada", key: str = "k1", training_consent: bool = True
) -> Candidate:
    return Candidate(user_id=user_id, idempotency_key=key, training_consent=training_consent, raw=raw)


def screened(what: Candidate) -> Candidate:
    screens = build_screens(encoder=WordEncoder(), max_bytes=40, max_tokens=6)
    return pass_all(pass_all(what, screens.to_answer), screens.to_learn)


def refusal(what: Candidate) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        screened(what)
    return caught.value


def test_a_good_prompt_comes_out_with_text_and_tokens() -> None:
    passed = screened(candidate())
    assert passed.text == "Name three fruits."
    assert passed.token_ids == (1, 4, 5, 7, 2)


def test_tabs_and_line_feeds_are_text_and_windows_line_ends_become_line_feeds() -> None:
    assert screened(candidate(b"a\tb\r\nc\n")).text == "a\tb\nc\n"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        ("\u200b\ufeff\u00a0".encode(), "empty"),
        (b"caf\xe9", "not_utf8"),
        (b"\xff\xfe\x00a", "not_utf8"),
        (b"a \xed\xa0\x80 b", "not_utf8"),
        (b"\xc0\xaf", "not_utf8"),
        (b"a\x00b", "control_character"),
        (b"a\x1b[31mb", "control_character"),
        (b"a\rb", "control_character"),
        ("a\u0085b".encode(), "control_character"),
        (b"a\x7f", "control_character"),
        (b"x" * 41, "too_large"),
        (b"a b c d e", "too_many_tokens"),
    ],
)
def test_a_malformed_prompt_is_refused_with_its_reason(raw: bytes, reason: str) -> None:
    assert refusal(candidate(raw)).reason == reason


def test_the_bounds_themselves_pass() -> None:
    assert len(screened(candidate(b"x" * 40)).text) == 40
    assert len(screened(candidate(b"a b c d")).token_ids) == 6


@pytest.mark.parametrize("raw", [b"secret \xff", b"secret \x00", b"secret " * 7, b"secret a b c d e"])
def test_no_message_repeats_the_text(raw: bytes) -> None:
    error = refusal(candidate(raw))
    assert "secret" not in str(error)
    assert error.__cause__ is None


def test_the_messages_say_what_and_why() -> None:
    assert str(refusal(candidate(b"caf\xe9 au lait"))) == "the prompt is not UTF-8: byte 3 cannot be decoded"
    assert str(refusal(candidate(b"ab\x00"))) == "the prompt holds control character U+0000 at character 2"
    assert str(refusal(candidate(b"x" * 41))) == "the prompt has 41 bytes; at most 40 are taken"
    assert str(refusal(candidate(b"a b c d e"))) == "the prompt has 7 tokens; at most 6 are taken"


@pytest.mark.parametrize("user_id", ["", "x" * 129, "zoë", "a\nb", "a\x00"])
def test_a_bad_user_id_is_refused(user_id: str) -> None:
    assert refusal(candidate(user_id=user_id)).reason == "bad_user_id"


@pytest.mark.parametrize("key", ["", "x" * 129, "ключ", "a\n"])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    assert refusal(candidate(key=key)).reason == "bad_idempotency_key"


def test_names_of_128_printable_characters_pass() -> None:
    assert screened(candidate(user_id="x" * 128, key="~ " * 64)).text == "Name three fruits."


def test_without_consent_a_prompt_may_be_answered_but_not_learned_from() -> None:
    screens = build_screens(encoder=WordEncoder(), max_bytes=40, max_tokens=6)
    answerable = pass_all(candidate(training_consent=False), screens.to_answer)
    with pytest.raises(ConsentMissing):
        pass_all(answerable, screens.to_learn)


def test_an_oversize_prompt_is_never_tokenised() -> None:
    encoder = WordEncoder()
    screens = build_screens(encoder=encoder, max_bytes=40, max_tokens=6)
    with pytest.raises(OnlineRLHFError):
        pass_all(candidate(b"x" * 41), screens.to_answer)
    assert encoder.num_calls == 0


def test_the_order_of_the_screens_decides_the_reason() -> None:
    assert refusal(candidate(b"\xff\x00" + b"x" * 50, user_id="")).reason == "bad_user_id"
    assert refusal(candidate(b"\xff\x00" + b"x" * 50)).reason == "too_large"
    assert refusal(candidate(b"\xff\x00 ")).reason == "not_utf8"
    assert refusal(candidate(b"\x00 ")).reason == "control_character"
    assert refusal(candidate(b" " * 30)).reason == "empty"
    assert refusal(candidate(b"a " * 15)).reason == "too_many_tokens"
