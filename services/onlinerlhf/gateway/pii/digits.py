"""What the digits of a text can be a part of, by what stands right next to each run of them. Pure and linear.

Most prompts have a few short numbers: a year, a count, a version. One look at each of them tells which detectors have
nothing to find, and these are the dear ones, for they search the whole text.
"""

import re
from dataclasses import dataclass

from onlinerlhf.gateway.pii.addresses import AFTER_HOUSE, may_end_street
from onlinerlhf.gateway.pii.financial import may_start_iban
from onlinerlhf.gateway.pii.windows import MIN_DIGITS

# Not [0-9]+: a search for a plain class skips in C.
_RUN = re.compile("[0-9][0-9]*")
_BRACKETS = ("(", "[")
_MANY = 32
"""So many numbers are as dear as the whole text."""
_DIGITS_OF_PAN = 4
"""How many digits an Indian taxpayer's number has, between letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Where False, the text has none of these."""

    is_any: bool = True
    is_long: bool = False
    """A number with `MIN_DIGITS` digits or more."""
    is_ip: bool = False
    is_iban: bool = False
    is_pan: bool = False
    is_house: bool = False
    is_street: bool = False


def census(text: str) -> Digits:
    """What is possible in this text."""
    runs = [match.span() for match in _RUN.finditer(text)]
    if len(runs) > _MANY:
        return Digits(is_long=True, is_ip=True, is_iban=True, is_pan=True, is_house=True, is_street=True)
    # Plain names: attributes cost as much as the questions.
    is_ip, is_iban, is_pan, is_house, is_street, num_digits = text.count(":") >= 2, False, False, False, False, 0
    for start, end in runs:
        num_digits += end - start
        after = text[end : end + 2]
        is_ip = is_ip or after[:1] in _BRACKETS or (after[:1] == "." and after[1:].isdigit())
        is_iban = is_iban or (end - start >= 2 and may_start_iban(text, start))
        is_pan = is_pan or (end - start == _DIGITS_OF_PAN and after[:1].isupper())
        is_house = is_house or (after[:1] != "." and AFTER_HOUSE.match(text, end) is not None)
        is_street = is_street or may_end_street(text, start)
    return Digits(
        is_any=bool(runs),
        is_long=num_digits >= MIN_DIGITS,
        is_ip=is_ip,
        is_iban=is_iban,
        is_pan=is_pan,
        is_house=is_house,
        is_street=is_street,
    )
