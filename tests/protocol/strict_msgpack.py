"""A second reader of spec 00's encoding, written from its text alone: no library, no re-encoding.

It says which bytes are one canonical value of the kinds we allow; the product's codec must agree on any bytes.
"""

from __future__ import annotations

MAX_NESTING = 6


class NotCanonical(Exception):
    """Not exactly one value in its shortest form."""


def read(data: bytes) -> object:
    """The one value in `data`; arrays are tuples."""
    value, end = _value(data, 0, 0)
    if end != len(data):
        raise NotCanonical("trailing bytes")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[object, int]:
    head = _take(data, at, 1)[0]
    at += 1
    if head <= 0x7F:
        return head, at
    if 0x90 <= head <= 0x9F:
        return _array(data, at, head & 0x0F, depth)
    if 0xA0 <= head <= 0xBF:
        return _string(data, at, head & 0x1F)
    if head in (0xC2, 0xC3):
        return head == 0xC3, at
    if 0xCC <= head <= 0xCF:
        return _number(data, at, 1 << (head - 0xCC), 0x80)
    if 0xC4 <= head <= 0xC6:
        size, at = _number(data, at, 1 << (head - 0xC4), 0)
        return _take(data, at, size), at + size
    if 0xD9 <= head <= 0xDB:
        size, at = _number(data, at, 1 << (head - 0xD9), 32)
        return _string(data, at, size)
    if head in (0xDC, 0xDD):
        size, at = _number(data, at, 2 << (head - 0xDC), 16)
        return _array(data, at, size, depth)
    raise NotCanonical(f"head {head:02x}")


def _number(data: bytes, at: int, width: int, least: int) -> tuple[int, int]:
    """A big-endian integer that would not have fitted half the width, nor the one-byte form."""
    value = int.from_bytes(_take(data, at, width), "big")
    if value < least or (width > 1 and least != 16 and value < 1 << 4 * width) or (width == 4 and value < 1 << 16):
        raise NotCanonical("a shorter form exists")
    return value, at + width


def _string(data: bytes, at: int, size: int) -> tuple[str, int]:
    try:
        return _take(data, at, size).decode("utf-8", "strict"), at + size
    except UnicodeDecodeError as exc:
        raise NotCanonical("no UTF-8") from exc


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[tuple[object, ...], int]:
    if depth == MAX_NESTING:
        raise NotCanonical("nested too deep")
    items = []
    for _ in range(count):
        item, at = _value(data, at, depth + 1)
        items.append(item)
    return tuple(items), at


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise NotCanonical("cut off")
    return data[at : at + size]
