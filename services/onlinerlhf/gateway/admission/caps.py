"""Which of an owner's prompts are kept where there are more than the cap: those with the lowest keyed hashes. Pure.

So the choice depends neither on the order in which they come nor on anything that a client controls.
"""

from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.gateway.admission.dedup import Fingerprint
from onlinerlhf.gateway.admission.splits import leading_bits


def cap_score(prefixes: Fingerprint, digests: Digests) -> int:
    """Keyed hash of 52 bits of a prompt's content."""
    return leading_bits(digests.of("cap", prefixes.whole.digest))
