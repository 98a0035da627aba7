"""Keccak-256 as Ethereum uses it. Pure; hashlib's SHA3-256 pads differently.

Source: "The Keccak reference", version 3.0: 24 rounds of theta, rho, pi, chi, iota on 5 x 5 lanes of 64 bits.
"""

_MASK = (1 << 64) - 1
_RATE_BYTES = 136


def _round_constants() -> tuple[int, ...]:
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for place in range(7):
            if register & 1:
                constant |= 1 << ((1 << place) - 1)
            register <<= 1
            if register & 0x100:
                register ^= 0x171
        constants.append(constant)
    return tuple(constants)


def _walk() -> tuple[tuple[int, int, int], ...]:
    """Where rho and pi take each lane but the first: (x, y, rotation), in order of the walk."""
    steps, x, y = [], 1, 0
    for step in range(24):
        steps.append((x, y, (step + 1) * (step + 2) // 2 % 64))
        x, y = y, (2 * x + 3 * y) % 5
    return tuple(steps)


_CONSTANTS = _round_constants()
_WALK = _walk()


def keccak_256(message: bytes) -> bytes:
    """32 bytes."""
    padded = bytearray(message) + bytearray(_RATE_BYTES - len(message) % _RATE_BYTES)
    padded[len(message)] ^= 0x01
    padded[-1] ^= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for block in range(0, len(padded), _RATE_BYTES):
        for place in range(_RATE_BYTES // 8):
            start = block + 8 * place
            lanes[place % 5][place // 5] ^= int.from_bytes(padded[start : start + 8], "little")
        _permute(lanes)
    return b"".join(lanes[place % 5][place // 5].to_bytes(8, "little") for place in range(4))


def _permute(lanes: list[list[int]]) -> None:
    for constant in _CONSTANTS:
        parity = [lane[0] ^ lane[1] ^ lane[2] ^ lane[3] ^ lane[4] for lane in lanes]
        for x in range(5):
            mixed = parity[x - 1] ^ _rotate(parity[(x + 1) % 5], 1)
            lanes[x] = [lane ^ mixed for lane in lanes[x]]
        carried = lanes[1][0]
        for x, y, rotation in _WALK:
            target_x, target_y = y, (2 * x + 3 * y) % 5
            carried, lanes[target_x][target_y] = lanes[target_x][target_y], _rotate(carried, rotation)
        for y in range(5):
            row = [lanes[x][y] for x in range(5)]
            for x in range(5):
                lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & _MASK & row[(x + 2) % 5])
        lanes[0][0] ^= constant


def _rotate(lane: int, by: int) -> int:
    return (lane << by | lane >> (64 - by)) & _MASK
