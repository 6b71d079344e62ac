"""Vectors as bytes: checked, told apart, and made small (pure)."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import mul
from sys import byteorder
from typing import Final

from ryvion_node.knowledge.constants import QUANTISED_RANGE_SIGMAS
from ryvion_node.knowledge.errors import BadVectors, OtherDimensions
from ryvion_node.knowledge.interface import Vectors
from ryvion_protocol.constants import MAX_DIMENSIONS

_FLOAT_BYTES: Final = 4
_LENGTH_TOLERANCE: Final = 0.01
"""Engines of half precision are off by a thousandth."""


def unpack(vectors: Vectors, count: int, model: bytes | None = None, dimensions: int = 0) -> tuple[bytes, ...]:
    """The `count` vectors one by one; raises BadVectors when they are not that many, of length 1, or not of the `model`
    and `dimensions` that are given.
    """
    size = vectors.dimensions * _FLOAT_BYTES
    if len(vectors.model) != 32 or (model is not None and vectors.model != model):
        raise BadVectors("the vectors are of another model than was asked for")
    if not 0 < vectors.dimensions <= MAX_DIMENSIONS:
        raise BadVectors(f"vectors of {vectors.dimensions} numbers cannot be kept, at most {MAX_DIMENSIONS}")
    if dimensions and vectors.dimensions != dimensions:
        raise OtherDimensions(f"vectors of {vectors.dimensions} numbers came, but the model made {dimensions} before")
    if len(vectors.values) != size * count:
        raise BadVectors(f"{len(vectors.values)} bytes came for {count} vectors of {vectors.dimensions} numbers")
    rows = tuple(vectors.values[start : start + size] for start in range(0, size * count, size))
    for row in rows:
        numbers = _floats(row)
        length = math.sqrt(sum(map(mul, numbers, numbers)))
        if not abs(length - 1.0) <= _LENGTH_TOLERANCE:  # so put, it also refuses what is not a number
            raise BadVectors("a vector is not of length 1")
    return rows


def quantised(vector: bytes) -> bytes:
    """One signed byte per number, to find candidates with: components of unit vectors are about 1/sqrt(n) large."""
    numbers = _floats(vector)
    scale = 127 * math.sqrt(len(numbers)) / QUANTISED_RANGE_SIGMAS
    return array("b", [round(max(-127.0, min(127.0, number * scale))) for number in numbers]).tobytes()


def packed(rows: Sequence[Sequence[float]]) -> bytes:
    """Little-endian float32, row by row."""
    numbers = array("f", [number for row in rows for number in row])
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _floats(vector: bytes) -> array[float]:
    numbers = array("f")
    numbers.frombytes(vector)
    if byteorder == "big":
        numbers.byteswap()
    return numbers
