"""All detectors together: cheap questions first, so that an ordinary prompt meets few patterns. Pure and linear."""

import re

from onlinerlhf.gateway.pii.addresses import street_addresses
from onlinerlhf.gateway.pii.assignments import assignments
from onlinerlhf.gateway.pii.contact import Span, emails
from onlinerlhf.gateway.pii.financial import cards, ibans
from onlinerlhf.gateway.pii.findings import Finding, without_overlaps
from onlinerlhf.gateway.pii.identity import national_ids
from onlinerlhf.gateway.pii.names import names
from onlinerlhf.gateway.pii.network import ip_addresses
from onlinerlhf.gateway.pii.offsets import View, view
from onlinerlhf.gateway.pii.papers import birth_dates, passports
from onlinerlhf.gateway.pii.phones import phones
from onlinerlhf.gateway.pii.secrets import keys, private_keys, url_credentials
from onlinerlhf.gateway.pii.wallets import wallets
from onlinerlhf.gateway.pii.windows import long_words, numbers

_DIGIT = re.compile("[0-9]")


def find(text: str) -> list[Finding]:
    """Personal data and secrets in `text`, sorted by start, none overlapping another; offsets into `text` itself."""
    seen = view(text)
    spans = [*emails(seen), *names(seen), *assignments(seen), *private_keys(seen), *url_credentials(seen)]
    words = long_words(seen)
    if words:
        spans += [*keys(seen, words), *wallets(seen, words)]
    if _DIGIT.search(seen.text) is not None:
        spans += _with_digits(seen)
    return without_overlaps([seen.original(kind, start, end) for kind, start, end in spans])


def _with_digits(seen: View) -> list[Span]:
    spans = [*ip_addresses(seen), *birth_dates(seen), *passports(seen), *street_addresses(seen), *ibans(seen)]
    windows = numbers(seen)
    # Without a window only what is looked for everywhere is found.
    spans += national_ids(seen, windows)
    if windows:
        spans += [*phones(seen, windows), *cards(seen, windows)]
    return spans
