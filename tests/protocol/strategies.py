"""Hypothesis strategies that make any legal message straight from the annotations of its class."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from ryvion_protocol.any_message import Message
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.packet import MessageClass
from ryvion_protocol.schema import PRINTABLE, Lengths, Pattern, Size

MESSAGE_CLASSES: tuple[MessageClass, ...] = get_args(Message)
_TEXT = st.characters(codec="utf-8")


@cache
def legal(cls: type) -> st.SearchStrategy[Any]:
    """Instances of `cls` whose every field is legal by itself, and whose root is that of its passages."""
    hints = get_type_hints(cls, include_extras=True)
    made = st.builds(cls, **{part.name: _of(hints[part.name]) for part in fields(cls)})
    if "chunk_root" not in hints:
        return made
    return made.map(lambda message: replace(message, chunk_root=merkle_root(message.chunk_hashes)))


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if hint is bool:
        return st.booleans()
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return legal(hint)
    assert get_origin(hint) is Annotated
    base, *marks = get_args(hint)
    base = getattr(base, "__supertype__", base)
    size = next(mark for mark in marks if isinstance(mark, Size))
    if get_origin(base) is tuple:
        return st.lists(_of(get_args(base)[0]), min_size=size.low, max_size=min(size.high, 4)).map(tuple)
    if base is int:
        return st.integers(size.low, size.high)
    if base is bytes:
        lengths = next((mark.allowed for mark in marks if isinstance(mark, Lengths)), (size.low, size.high))
        return st.sampled_from(lengths).flatmap(lambda length: st.binary(min_size=length, max_size=length))
    pattern = next((mark.regex for mark in marks if isinstance(mark, Pattern)), None)
    if pattern is None:
        return st.text(_TEXT, min_size=size.low, max_size=min(size.high // 4, 40))
    if pattern == PRINTABLE:
        return st.text(st.characters(categories=("L", "N", "P", "S")), max_size=min(size.high // 4, 16))
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: size.low <= len(text.encode()) <= size.high)
