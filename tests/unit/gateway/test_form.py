from dataclasses import replace

import pytest

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.requests.form import FormLimits
from onlinerlhf.gateway.requests.lane import AnswerSpec
from onlinerlhf.gateway.requests.questions import Question

LIMITS = FormLimits(max_prompt_bytes=40, max_turns=3, max_answers=4, max_response_tokens=100)
SPEC = AnswerSpec(max_tokens=10, temperature=1.0)


def question(raw: bytes = b"Name three fruits.", *, user_id: str = "ada", key: str = "k1") -> Question:
    return Question(user_id=user_id, turns=(("user", raw),), spec=SPEC, idempotency_key=key)


def refusal(what: Question) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        form.check(what, LIMITS)
    return caught.value


def test_a_good_prompt_comes_out_as_text() -> None:
    assert form.check(question(), LIMITS) == (("user", "Name three fruits."),)


def test_tabs_and_line_feeds_are_text_and_windows_line_ends_become_line_feeds() -> None:
    assert form.check(question(b"a\tb\r\nc\n"), LIMITS) == (("user", "a\tb\nc\n"),)


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
    ],
)
def test_a_malformed_prompt_is_refused_with_its_reason(raw: bytes, reason: str) -> None:
    assert refusal(question(raw)).reason == reason


@pytest.mark.parametrize("raw", [b"secret \xff", b"secret \x00", b"secret " * 7])
def test_no_message_repeats_the_text(raw: bytes) -> None:
    error = refusal(question(raw))
    assert "secret" not in str(error)
    assert error.__cause__ is None


def test_the_messages_say_what_and_why() -> None:
    assert str(refusal(question(b"caf\xe9 au lait"))) == "the prompt is not UTF-8: byte 3 cannot be decoded"
    assert str(refusal(question(b"ab\x00"))) == "the prompt holds control character U+0000 at character 2"
    assert str(refusal(question(b"x" * 41))) == "the prompt has 41 bytes; at most 40 are taken"


def test_the_bounds_themselves_pass() -> None:
    assert form.check(question(b"x" * 40, user_id="x" * 128, key="~ " * 64), LIMITS)[0][1] == "x" * 40


@pytest.mark.parametrize("user_id", ["", "x" * 129, "zoë", "a\nb", "a\x00", "a\n"])
def test_a_bad_user_id_is_refused(user_id: str) -> None:
    assert refusal(question(user_id=user_id)).reason == "bad_user_id"


@pytest.mark.parametrize("key", ["x" * 129, "ключ", "a\n"])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    assert refusal(question(key=key)).reason == "bad_idempotency_key"


@pytest.mark.parametrize(
    "turns",
    [
        (),
        (("user", b"a"), ("assistant", b"b")),
        (("tool", b"a"), ("user", b"b")),
        (("user", b"a"), ("assistant", b"b"), ("user", b"c"), ("user", b"d")),
    ],
)
def test_a_conversation_has_known_roles_few_turns_and_the_users_word_last(turns: tuple[tuple[str, bytes], ...]) -> None:
    assert refusal(replace(question(), turns=turns)).reason == "bad_messages"


def test_each_turn_is_checked_and_all_count_together() -> None:
    turns = (("system", b"\x00"), ("user", b"b"))
    assert refusal(replace(question(), turns=turns)).reason == "control_character"
    turns = (("system", b"x" * 21), ("user", b"x" * 20))
    assert refusal(replace(question(), turns=turns)).reason == "too_large"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_tokens": 0}, "bad_max_tokens"),
        ({"max_tokens": -1}, "bad_max_tokens"),
        ({"max_tokens": 101}, "bad_max_tokens"),
        ({"max_tokens": 2**40}, "bad_max_tokens"),
        ({"temperature": -0.1}, "bad_temperature"),
        ({"temperature": 2.1}, "bad_temperature"),
        ({"temperature": float("nan")}, "bad_temperature"),
        ({"top_p": 0.0}, "bad_top_p"),
        ({"top_p": float("inf")}, "bad_top_p"),
        ({"stop": ("a",) * 5}, "bad_stop"),
        ({"stop": ("",)}, "bad_stop"),
        ({"stop": ("x" * 65,)}, "bad_stop"),
        ({"num_top_logprobs": 21}, "bad_logprobs"),
        ({"seed": -1}, "bad_seed"),
        ({"seed": 2**63}, "bad_seed"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(changes: dict[str, object], reason: str) -> None:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    assert refusal(replace(question(), spec=spec)).reason == reason


@pytest.mark.parametrize("num_answers", [0, -1, 5])
def test_so_many_answers_are_refused(num_answers: int) -> None:
    assert refusal(replace(question(), num_answers=num_answers)).reason == "bad_num_answers"


def test_the_order_of_the_checks_decides_the_reason() -> None:
    assert refusal(question(b"\xff\x00" + b"x" * 50, user_id="")).reason == "bad_user_id"
    assert refusal(question(b"\xff\x00" + b"x" * 50)).reason == "too_large"
    assert refusal(question(b"\xff\x00 ")).reason == "not_utf8"
    assert refusal(question(b"\x00 ")).reason == "control_character"
    assert refusal(question(b" " * 30)).reason == "empty"
