"""Signed numbers on a wire that has none: 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ... (spec 00, "Signed numbers")."""

from __future__ import annotations


def zigzag(number: int) -> int:
    """The unsigned form."""
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(encoded: int) -> int:
    """The number that `encoded` (0 or above) stands for."""
    return encoded // 2 if encoded % 2 == 0 else -(encoded + 1) // 2
