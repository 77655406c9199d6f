"""Identifiers: UUIDv7 in the database; on the wire a type prefix and 26 sortable characters.

Such as `job_01h455vb4pex5vsknk084sn02q`.
"""

import secrets
import threading
import time
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: sorts like the number it writes
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Two characters at a time: pages of runs show hundreds of ids."""
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26
_MAX_UUID = (1 << 128) - 1


_lock = threading.Lock()
_last = 0


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. Those of one process sort as they were made."""
    global _last
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    with _lock:
        if value <= _last:  # the same millisecond, or a clock set back: count on from the last one
            value = _last + 1 + secrets.randbits(32)
        _last = value
    return UUID(int=value)


def encode_id(prefix: str, identifier: UUID) -> str:
    """The identifier as it is shown: `prefix_` and 26 characters that sort as the UUIDs do."""
    value = identifier.int
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(5 * (_LENGTH - 2), -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def decode_id(prefix: str, text: str) -> UUID:
    """The UUID behind a shown identifier.

    Raises:
        ValueError: another prefix, length or character.
    """
    start, separator, digits = text.partition("_")
    if start != prefix or not separator or len(digits) != _LENGTH or any(c not in _VALUES for c in digits):
        raise ValueError(f"{text[:64]!r} is no {prefix} id")
    value = 0
    for character in digits:
        value = value << 5 | _VALUES[character]
    if value > _MAX_UUID:
        raise ValueError(f"{text[:64]!r} is no {prefix} id")
    return UUID(int=value)
