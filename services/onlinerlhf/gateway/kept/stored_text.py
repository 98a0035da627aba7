"""Text that is about to be stored passes here: as its policy leaves it, or not at all."""

from onlinerlhf.gateway.pii.policy import Policy, Screened, apply
from onlinerlhf.gateway.pii.scanner import Scanner, ScreenFailed


async def storable(text: str, scanner: Scanner, policy: Policy) -> Screened | None:
    """The text as it may be stored; None where it may not, or where the scanner failed and nobody knows."""
    try:
        screened = apply(text, await scanner.scan(text), policy)
    except ScreenFailed:
        return None
    return None if screened.is_dropped else screened
