"""Names for things: a prefix and a UUIDv7 in lower-case Crockford base32, sorted by creation."""

import re
import secrets
import time
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ID: Final = re.compile(r"[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}")


def new_id(prefix: str) -> str:
    """Make an id such as `video_01m7q5cqg0eejstb3z1dq9397k` (RFC 9562 version 7 bits)."""
    bits = secrets.randbits(74)
    number = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (bits >> 62) << 64
    number |= 0b10 << 62 | bits & ((1 << 62) - 1)
    return _spelled(prefix, number)


def least_id(prefix: str, moment: float) -> str:
    """Give a text that sorts before every id made from a moment on, in Unix seconds."""
    return _spelled(prefix, max(0, int(moment * 1000)) << 80)


def _spelled(prefix: str, number: int) -> str:
    return f"{prefix}_{''.join(ALPHABET[number >> 5 * i & 31] for i in reversed(range(26)))}"


def number_of(id_: str) -> int:
    """Read the 128 bits that an id spells."""
    number = 0
    for letter in id_.rpartition("_")[2]:
        number = number << 5 | ALPHABET.index(letter)
    return number


def is_id(text: str, prefix: str) -> bool:
    """Tell whether a text from outside has the shape of our ids with this prefix."""
    return text.startswith(f"{prefix}_") and _ID.fullmatch(text) is not None
