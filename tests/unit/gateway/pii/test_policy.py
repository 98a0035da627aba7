from onlinerlhf.gateway.pii import Finding, Kind, find
from onlinerlhf.gateway.pii.policy import Policy, Screened, apply

TEXT = "mail ann@example.com or call +49 30 12345678 or bob@example.com"


def test_redact_puts_typed_placeholders() -> None:
    screened = apply(TEXT, find(TEXT), Policy.REDACT)
    assert screened.text == "mail [EMAIL] or call [PHONE] or [EMAIL]"
    assert screened.kinds == (Kind.EMAIL, Kind.PHONE)
    assert not screened.is_dropped


def test_tag_leaves_the_text_and_names_the_kinds() -> None:
    assert apply(TEXT, find(TEXT), Policy.TAG) == Screened(text=TEXT, kinds=(Kind.EMAIL, Kind.PHONE), is_dropped=False)


def test_drop_keeps_nothing_of_the_text() -> None:
    assert apply(TEXT, find(TEXT), Policy.DROP) == Screened(text="", kinds=(Kind.EMAIL, Kind.PHONE), is_dropped=True)


def test_a_clean_text_passes_any_policy_unchanged() -> None:
    for policy in Policy:
        assert apply("Name three fruits.", [], policy) == Screened(
            text="Name three fruits.", kinds=(), is_dropped=False
        )


def test_what_is_redacted_is_not_found_again() -> None:
    redacted = apply(TEXT, find(TEXT), Policy.REDACT).text
    assert find(redacted) == []


def test_hidden_characters_within_a_finding_go_with_it() -> None:
    text = "x jo\u200bhn@example.com y"
    assert apply(text, find(text), Policy.REDACT).text == "x [EMAIL] y"


def test_every_kind_has_a_placeholder_in_capitals() -> None:
    assert Kind.CARD.placeholder == "[CARD]"
    text = "0123456789"
    found = [Finding(kind=kind, start=0, end=10) for kind in Kind]
    assert all(apply(text, [one], Policy.REDACT).text == one.kind.placeholder for one in found)
