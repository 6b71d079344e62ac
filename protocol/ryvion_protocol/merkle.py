"""Merkle trees over hashes, as RFC 9162 (Certificate Transparency 2.0) section 2.1 has them: one root commits to a list
of passages, and a path proves that one of them is in it without showing the others (spec 02).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ryvion_protocol.errors import PayloadInvalid

NO_ROOT: Final = b""
"""Of no passages at all."""


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The 32-byte root over `leaves`, in their order; empty when there are none (RFC 9162, 2.1.1)."""
    return _subtree([_leaf(leaf) for leaf in leaves]) if leaves else NO_ROOT


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes that lead from the leaf at `index` up to the root, lowest first (RFC 9162, 2.1.3.1).

    Raises IndexError.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    return tuple(_path([_leaf(leaf) for leaf in leaves], index))


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a path leads to from `leaf`, number `index` of `size` (RFC 9162, 2.1.3.2): included is what gives the
    root that was signed.

    Raises PayloadInvalid when there is no such place, or the path has another length than the place wants.
    """
    if not 0 <= index < size:
        raise PayloadInvalid("merkle_path", f"there is no leaf {index} of {size}")
    node, last = index, size - 1
    found = _leaf(leaf)
    for sibling in path:
        if last == 0:
            raise PayloadInvalid("merkle_path", "the path is too long")
        if node % 2 or node == last:
            found = _parent(sibling, found)
            while node and node % 2 == 0:
                node, last = node // 2, last // 2
        else:
            found = _parent(found, sibling)
        node, last = node // 2, last // 2
    if last:
        raise PayloadInvalid("merkle_path", "the path is too short")
    return found


def _subtree(nodes: Sequence[bytes]) -> bytes:
    if len(nodes) == 1:
        return nodes[0]
    cut = _cut(len(nodes))
    return _parent(_subtree(nodes[:cut]), _subtree(nodes[cut:]))


def _path(nodes: Sequence[bytes], index: int) -> list[bytes]:
    if len(nodes) == 1:
        return []
    cut = _cut(len(nodes))
    if index < cut:
        return [*_path(nodes[:cut], index), _subtree(nodes[cut:])]
    return [*_path(nodes[cut:], index - cut), _subtree(nodes[:cut])]


def _cut(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
