"""Payment cards (Luhn and issuer ranges) and IBANs (ISO 13616: length by country, mod 97). Pure."""

import re
from collections.abc import Iterator

from stdnum import luhn

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import Budget, is_in_row, last_before, whole_words, words
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.windows import Windows, matches, not_after

MAX_CHECKS = 200
"""Of words before right numbers, a text."""

_SEPARATOR = r"[ \-._/]{0,3}"
_LEFT = ("[0-9A-Za-z_]", r"[0-9][.\-/]")
_RIGHT = r"(?![0-9A-Za-z_])(?![.][0-9])"
_NO_ROW = r"(?! [0-9A-F]{4}(?![0-9A-Za-z]))"
"""No further group follows: a dump has many."""
# Longest first: a card with 19 digits begins like one with 16.
_CARDS = tuple(
    re.compile(not_after(*_LEFT, body=_SEPARATOR.join(f"[0-9]{{{size}}}" for size in sizes)) + _RIGHT + _NO_ROW)
    for sizes in ((4, 4, 4, 4, 3), (6, 13), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4))
)
_DIGITS = re.compile(not_after(*_LEFT, body="[0-9]{12,19}") + _RIGHT)

# Issuer ranges: first and last prefix of equal length, and how many digits.
_ISSUERS = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 19)),  # Discover
    ("644", "659", (16, 19)),
    ("300", "305", (14, 16)),  # Diners Club
    ("3095", "3095", (14, 16)),
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("3500", "3599", (16,)),  # JCB
    ("2131", "2131", (15,)),
    ("1800", "1800", (15,)),
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("81", "81", (16,)),
    ("2200", "2204", (16,)),  # Mir
    ("5018", "5018", (12, 16, 18, 19)),  # Maestro
    ("5020", "5020", (12, 16, 18, 19)),
    ("5038", "5038", (12, 16, 18, 19)),
    ("6304", "6304", (12, 16, 18, 19)),
    ("6390", "6390", (12, 16, 18, 19)),
    ("6759", "6763", (12, 16, 18, 19)),
    ("60", "60", (16,)),  # RuPay, Hipercard
    ("508", "508", (16,)),
    ("6521", "6522", (16,)),
    ("5067", "5067", (16,)),  # Elo
    ("4011", "4011", (16,)),
    ("9792", "9792", (16,)),  # Troy
)
_CUED_ISSUERS = (("50", "50", (12, 13, 14, 15, 16)), ("56", "69", (12, 13, 14, 15, 16, 19)))
_CARD_CUE = words(
    "card", "visa", "mastercard", "amex", "american express", "discover", "maestro", "credit", "debit",
    r"cc(?![a-z])", "kreditkarte", "karte", "carte", "tarjeta", "cartão", "cartao", "信用卡", "卡号", "银行卡",
    "カード", "pay", r"pan(?![a-z])",
)  # fmt: skip
_OTHER_CUE = whole_words(
    "order", "invoice", "track(?:ing)?", "isbn", "imei", "serial", r"ref", "reference", "ticket", "uuid", "commit",
    "timestamp", "epoch", "unix", "订单", "快递", "运单", "编号", "barcode", "seed", "hash", r"id", "ean", "gtin",
    "parcel", "shipment", "fedex", "ups", "dhl", "usps", "sendung[a-z]{0,12}", "bestell[a-z]{0,12}", "colis",
    "commande", "pedido", "snowflake", "constant", "number theory", "prime", "random", "iccid", "sscc",
)  # fmt: skip


def cards(view: View, windows: Windows) -> Iterator[Span]:
    """Numbers that an issuer could have given out and whose last digit is right."""
    budget = Budget(MAX_CHECKS)
    is_table_of_cards: bool | None = None
    for pattern in (_DIGITS, *_CARDS):
        for match in matches(pattern, view.text, windows):
            # One of a list, unless cards are spoken of.
            if is_in_row(view.text, *match.span()):
                if is_table_of_cards is None:
                    is_table_of_cards = _CARD_CUE.search(view.lower) is not None
                if not is_table_of_cards:
                    continue
            if _is_card(view, match.start(), re.sub("[^0-9]", "", match.group()), budget):
                yield Kind.CARD, match.start(), match.end()


def _is_card(view: View, start: int, digits: str, budget: Budget) -> bool:
    known = _issued(digits, _ISSUERS)
    if not (known or _issued(digits, _CUED_ISSUERS)) or len(set(digits)) < 2 or not luhn.is_valid(digits):
        return False
    if not budget.spend():
        return True
    card, other = last_before(view, start, _CARD_CUE), last_before(view, start, _OTHER_CUE, width=24)
    return card > other or (known and other < 0)


def _issued(digits: str, issuers: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bool:
    return any(len(digits) in lengths and first <= digits[: len(first)] <= last for first, last, lengths in issuers)


# ISO 13616, release of 2024.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI FR GR IT MC MR SM DJ", 28: "AL AZ BY CY DO GT HU LB PL SV NI",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
# The two check digits; before them the country.
_IBAN_START = re.compile(r"[0-9]{2}(?:(?<=[A-Za-z]{2}[0-9]{2})|(?<=[A-Za-z]{2} [0-9]{2}))(?=[ .\-]?[A-Za-z0-9])")


def may_start_iban(text: str, start: int) -> bool:
    """Whether a country stands before the digits at `start`, and enough letters and digits follow."""
    end = start - 1 if text[start - 1 : start] == " " else start
    length = _IBAN_LENGTHS.get(text[max(0, end - 2) : end].upper())
    return length is not None and _end_of(text, end - 2, length) is not None


def ibans(view: View) -> Iterator[Span]:
    """Compact, grouped, in either case."""
    text = view.text
    for match in _IBAN_START.finditer(text):
        start = match.start() - (3 if text[match.start() - 1] == " " else 2)
        before = text[max(0, start - 1) : start]
        length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
        is_glued = before.isascii() and before.isalnum() and not view.lower.endswith("iban", 0, start)
        if length is None or is_glued:
            continue
        end = _end_of(text, start, length)
        if end is not None and _mod_97(text[start:end]) == 1:
            yield Kind.IBAN, start, end


def _end_of(text: str, start: int, length: int) -> int | None:
    """Where `length` letters and digits from `start` end, single separators between them; None where they do not."""
    place, left, parted = start, length, False
    while left and place < len(text):
        character = text[place]
        if character.isascii() and character.isalnum():
            left, parted = left - 1, False
        elif character not in " .-" or parted:
            return None
        else:
            parted = True
        place += 1
    after = text[place : place + 1]
    return None if left or (after.isascii() and after.isalnum()) else place


def _mod_97(written: str) -> int:
    plain = re.sub("[^A-Z0-9]", "", written.upper())
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97
