import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlinerlhf.gateway.pii import Kind, find
from onlinerlhf.gateway.pii.offsets import view

PLAIN = {
    Kind.EMAIL: "john.doe@example.com",
    Kind.PHONE: "+49 30 12345678",
    Kind.CARD: "4111 1111 1111 1111",
    Kind.IBAN: "DE89 3704 0044 0532 0130 00",
    Kind.US_SSN: "536-22-8741",
    Kind.CN_RESIDENT_ID: "11010519491231002X",
    Kind.IP_ADDRESS: "93.184.216.34",
}
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})


def found_whole(kind: Kind, text: str, disguised: str) -> bool:
    start = text.index(disguised)
    return any(
        found.kind is kind and found.start <= start and found.end >= start + len(disguised) for found in find(text)
    )


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("hidden", ["\u200b", "\u200d", "\u00ad", "\u200f", "\u202e", "\ufeff", "\u2060", "\ufe0f"])
def test_invisible_characters_hide_nothing(kind: Kind, hidden: str) -> None:
    disguised = hidden.join(PLAIN[kind])
    assert found_whole(kind, f"it is {disguised} as you know", disguised)


@pytest.mark.parametrize("kind", PLAIN)
def test_full_width_characters_hide_nothing(kind: Kind) -> None:
    disguised = PLAIN[kind].translate(FULL_WIDTH)
    assert found_whole(kind, f"it is {disguised} as you know", disguised)


@pytest.mark.parametrize("kind", [Kind.PHONE, Kind.CARD, Kind.IBAN])
@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u202f", "\u3000"])
def test_other_spaces_hide_nothing(kind: Kind, space: str) -> None:
    disguised = PLAIN[kind].replace(" ", space)
    assert found_whole(kind, f"it is {disguised} as you know", disguised)


@pytest.mark.parametrize("dash", ["\u2010", "\u2011", "\u2013", "\u2212", "\uff0d"])
def test_other_dashes_hide_nothing(dash: str) -> None:
    disguised = PLAIN[Kind.US_SSN].replace("-", dash)
    assert found_whole(Kind.US_SSN, f"it is {disguised} as you know", disguised)


@pytest.mark.parametrize("kind", PLAIN)
def test_chinese_text_around_hides_nothing(kind: Kind) -> None:
    assert found_whole(kind, f"我的信息是{PLAIN[kind]}请保密", PLAIN[kind])


def test_arabic_and_indian_digits_are_digits() -> None:
    assert [found.kind for found in find("هاتف +٤٩ ٣٠ ١٢٣٤٥٦٧٨ شكرا")] == [Kind.PHONE]
    assert [found.kind for found in find("फोन ९८७६५४३२१०")] == [Kind.PHONE]


def test_right_to_left_marks_around_an_address_are_not_part_of_it() -> None:
    text = "\u202bjohn@example.com\u202c"
    assert [(found.start, found.end) for found in find(text)] == [(1, 17)]


@given(st.text(max_size=300))
def test_a_view_leads_back_into_the_text(text: str) -> None:
    seen = view(text)
    assert len(seen.text) == len(seen.lower)
    if seen.sources is None:
        assert len(seen.text) == len(text)
    else:
        assert len(seen.sources) == len(seen.text)
        assert list(seen.sources) == sorted(seen.sources)
        assert all(0 <= source < len(text) for source in seen.sources)


@given(st.text(st.sampled_from("ab1@.+-() \u200b１\u0130中/:[]pws=#$é"), max_size=200))
def test_findings_lie_within_any_text(text: str) -> None:
    place = 0
    for found in find(text):
        assert place <= found.start < found.end <= len(text)
        place = found.end
