"""All detectors together: cheap questions first, so that an ordinary prompt meets few patterns. Pure and linear."""

from onlinerlhf.gateway.pii import assignments as assigned
from onlinerlhf.gateway.pii import contact
from onlinerlhf.gateway.pii import names as named
from onlinerlhf.gateway.pii.addresses import has_han_street, street_addresses
from onlinerlhf.gateway.pii.assignments import assignments
from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.digits import census
from onlinerlhf.gateway.pii.financial import cards, ibans
from onlinerlhf.gateway.pii.findings import Finding, without_overlaps
from onlinerlhf.gateway.pii.identity import national_ids
from onlinerlhf.gateway.pii.names import names
from onlinerlhf.gateway.pii.network import ip_addresses
from onlinerlhf.gateway.pii.offsets import View, view
from onlinerlhf.gateway.pii.papers import BIRTH_WORDS, PASSPORT_WORDS, birth_dates, passports
from onlinerlhf.gateway.pii.phones import phones
from onlinerlhf.gateway.pii.prefilter import any_of
from onlinerlhf.gateway.pii.secrets import keys, private_keys, url_credentials
from onlinerlhf.gateway.pii.wallets import wallets
from onlinerlhf.gateway.pii.windows import long_words, numbers

_WORDS = (*named.WORDS, *assigned.WORDS, *contact.SPELT_WORDS, *BIRTH_WORDS, *PASSPORT_WORDS)
# Private keys say "key", which is among the words.
_CUE = any_of([word for word in _WORDS if word.isascii()], named.PATTERN, assigned.PATTERN)
_OTHER_CUE = any_of([word for word in _WORDS if not word.isascii()])


def find(text: str) -> list[Finding]:
    """Personal data and secrets in `text`, sorted by start, none overlapping another; offsets into `text` itself."""
    seen = view(text)
    text, lower = seen.text, seen.lower
    words = long_words(seen)
    is_cued = _CUE.search(lower) is not None or (not text.isascii() and _OTHER_CUE.search(lower) is not None)
    spans = [*contact.plain_emails(seen)]
    if is_cued or contact.has_spelt_sign(lower):
        spans += contact.spelt_emails(seen)
    if is_cued:
        spans += names(seen)
    if is_cued or assigned.may_be_aws(words) or assigned.has_flag(text):
        spans += assignments(seen)
    if is_cued:
        spans += private_keys(seen)
    if "@" in text:
        spans += url_credentials(seen)
    if words:
        spans += [*keys(seen, words), *wallets(seen, words)]
    spans += _with_digits(seen, is_cued=is_cued)
    return without_overlaps([seen.original(kind, start, end) for kind, start, end in spans]) if spans else []


def _with_digits(seen: View, *, is_cued: bool) -> list[Span]:
    digits = census(seen.text)
    if not digits.is_any:
        return []
    spans: list[Span] = []
    if digits.is_ip:
        spans += ip_addresses(seen)
    if is_cued:
        spans += [*birth_dates(seen), *passports(seen)]
    is_last = digits.is_street or has_han_street(seen.text)
    if digits.is_house or is_last:
        spans += street_addresses(seen, digits_first=digits.is_house, digits_last=is_last)
    if digits.is_iban:
        spans += ibans(seen)
    windows = numbers(seen) if digits.is_long else ()
    # Without a window only what is looked for everywhere is found.
    if windows or digits.is_pan:
        spans += national_ids(seen, windows, may_have_pan=digits.is_pan)
    if windows:
        spans += [*phones(seen, windows), *cards(seen, windows)]
    return spans
