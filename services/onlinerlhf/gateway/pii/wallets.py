"""Addresses of crypto currencies, by their own checksums. Pure.

Base58Check (Bitcoin, Litecoin, Dogecoin, Dash, Tron, ...): the last 4 bytes are the double SHA-256 of the rest.
Bech32 and Bech32m: BIP 173 and BIP 350. Ethereum: EIP-55, upper case where the Keccak-256 nibble is 8 or more.
"""

import hashlib
import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import Budget, has_before, last_before, words
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.keccak import keccak_256
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.windows import Windows, longest, matches

MAX_CHECKS = 16
"""Keccak without a C library takes a good part of a millisecond."""

_BITCOIN_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE_BASE58 = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_CONSTANTS = (1, 0x2BC830A3)
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)

_BASE58 = re.compile(r"(?<![A-Za-z0-9])[1-9A-HJ-NP-Za-km-z]{26,35}(?![A-Za-z0-9])")
_BECH = re.compile(
    r"(?<![A-Za-z0-9])(?:bc|tb|ltc|addr|cosmos|osmo|bnb|inj|sei|celestia|terra|stake)1[02-9ac-hj-np-z]{11,103}(?![A-Za-z0-9])"
)
_ETHEREUM = re.compile(r"(?<![A-Za-z0-9])0[xX][0-9A-Fa-f]{40}(?![A-Za-z0-9])")
# A Bitcoin private key in WIF; an extended key of a whole wallet.
_LONG_BASE58 = re.compile(
    r"(?<![A-Za-z0-9])(?:[59KLc][1-9A-HJ-NP-Za-km-z]{50,51}|[txyz]p(?:rv|ub)[1-9A-HJ-NP-Za-km-z]{107,108})(?![A-Za-z0-9])"
)
_MONERO = re.compile(r"(?<![A-Za-z0-9])[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}(?:[1-9A-HJ-NP-Za-km-z]{11})?(?![A-Za-z0-9])")
_CASH = re.compile(r"(?<![A-Za-z0-9])bitcoincash:[qp][02-9ac-hj-np-z]{41}(?![A-Za-z0-9])")
_SOLANA = re.compile(r"(?<![A-Za-z0-9])[1-9A-HJ-NP-Za-km-z]{32,44}(?![A-Za-z0-9])")
_LONG = 26
"""Characters of all but Bech32."""
_CUE = words("wallet", r"eth(?![a-z])", "ethereum", "address", "0x", "metamask", r"send", "钱包", "地址")
# A hash of another kind has as many digits.
_HASH = words("hash", "commit", "sha-?1", "digest", "ripemd", "revision", "checksum")
_SOLANA_CUE = words("solana", r"sol(?![a-z])", "phantom")


def wallets(view: View, windows: Windows) -> Iterator[Span]:
    """Addresses whose checksum holds, and where a currency has none, those that a word before explains."""
    # Bech32 may be written in capitals too.
    spans = [match.span() for match in matches(_BECH, view.lower, windows) if _bech32_check(match.group())]
    if longest(windows) >= _LONG:
        spans = [*_long_wallets(view, windows), *spans]
    for start, end in spans:
        yield Kind.CRYPTO_WALLET, start, end


def _long_wallets(view: View, windows: Windows) -> Iterator[tuple[int, int]]:
    text, budget = view.text, Budget(MAX_CHECKS)
    spans = [match.span() for match in matches(_BASE58, text, windows) if _base58_check(match.group())]
    spans += [match.span() for match in matches(_LONG_BASE58, text, windows) if _long_base58_check(match.group())]
    spans += [match.span() for match in matches(_ETHEREUM, text, windows) if _is_ethereum(view, match, budget)]
    spans += [match.span() for match in matches(_CASH, view.lower, windows)]
    spans += [match.span() for match in matches(_MONERO, text, windows)]
    spans += [match.span() for match in matches(_SOLANA, text, windows) if has_before(view, match.start(), _SOLANA_CUE)]
    yield from spans


def _base58_check(written: str) -> bool:
    alphabet = _RIPPLE_BASE58 if written[0] == "r" else _BITCOIN_BASE58
    number = 0
    for character in written:
        number = number * 58 + alphabet.index(character)
    raw = number.to_bytes(27, "big")
    # One byte of version and a hash of 20, or two bytes of version.
    for num_bytes in (25, 26):
        payload = raw[27 - num_bytes :]
        body, checksum = payload[:-4], payload[-4:]
        is_right = hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4] == checksum
        if is_right and not any(raw[: 27 - num_bytes]):
            return True
    return False


def _long_base58_check(written: str) -> bool:
    number = 0
    for character in written:
        number = number * 58 + _BITCOIN_BASE58.index(character)
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def _bech32_check(written: str) -> bool:
    prefix, _, data = written.rpartition("1")
    values = [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]
    values += [_BECH32.index(character) for character in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            check ^= generator if top >> place & 1 else 0
    return check in _BECH32_CONSTANTS


def _is_ethereum(view: View, match: re.Match[str], budget: Budget) -> bool:
    written = match.group()[2:]
    if len(set(written.lower())) < 6:
        return False
    if written == written.lower() and last_before(view, match.start(), _HASH) > last_before(view, match.start(), _CUE):
        return False
    if written in (written.lower(), written.upper()) or has_before(view, match.start(), _CUE):
        return True
    if not budget.spend():
        return True
    digest = keccak_256(written.lower().encode("ascii")).hex()
    return all(
        character == (character.upper() if int(nibble, 16) >= 8 else character.lower())
        for character, nibble in zip(written, digest, strict=False)
    )
