"""Message bodies <-> bytes: one canonical msgpack array, checked field by field against the annotations (spec 00).

For every message class a plan is compiled once from its annotations; encoding and decoding then only run the plan.
Decoding re-encodes what it read and demands the same bytes, so every value has exactly one encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgpack  # type: ignore[import-untyped]

from ryvion_protocol.constants import MAX_NESTING, MAX_VALUES
from ryvion_protocol.errors import EncodingError, SchemaError
from ryvion_protocol.schema import Lengths, Pattern, Size

T = TypeVar("T")
Step = Callable[[object], object]
"""Checks one value and gives it back in its other form; raises _Illegal."""


def encode_body(message: object) -> bytes:
    """Encode a message's fields in order; raises SchemaError when one is not legal."""
    name = type(message).__name__
    try:
        value = _plan(type(message)).to_wire(message)
    except _Illegal as exc:
        raise SchemaError(exc.told(name)) from None
    body = pack_value(value)
    _check_count(value, body, name)
    return body


def decode_body(cls: type[T], body: bytes) -> T:
    """Decode `body` as a `cls`; raises EncodingError when it is not canonical, SchemaError when a field is not legal."""
    value = unpack_value(body)
    _check_count(value, body, cls.__name__)
    try:
        return cast(T, _plan(cls).from_wire(value))
    except _Illegal as exc:
        check_kinds(value)
        raise SchemaError(exc.told(cls.__name__)) from None


def pack_value(value: object) -> bytes:
    """Encode nested tuples of str, bytes, int and bool in the shortest form."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack_value(data: bytes) -> object:
    """Decode exactly one value and make sure that it encodes to the same bytes again; raises EncodingError.

    Arrays become tuples. The caller has bounded the length of `data` and must call `check_kinds` on a value that is
    not of the types it wants: kinds that we do not allow are an encoding error, whatever the schema says.
    """
    try:
        value: object = msgpack.unpackb(data, raw=False, use_list=False, max_map_len=0, max_ext_len=0)
        again = msgpack.packb(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        raise EncodingError(f"not one msgpack value of the kinds we allow: {type(exc).__name__}") from None
    if again != data:
        raise EncodingError("the value has a shorter or another canonical encoding")
    return value


def check_kinds(value: object, depth: int = 0) -> None:
    """Raise EncodingError when a map, float, extension, nil or negative integer is in `value`, or it nests too deep."""
    if type(value) is tuple:
        if depth == MAX_NESTING:
            raise EncodingError(f"arrays nest deeper than {MAX_NESTING}")
        for item in value:
            check_kinds(item, depth + 1)
    elif type(value) is int:
        if value < 0:
            raise EncodingError("a negative integer")
    elif type(value) not in (str, bytes, bool):
        raise EncodingError(f"a value of a kind we do not use: {type(value).__name__}")


def _check_count(value: object, body: bytes, name: str) -> None:
    """Raise SchemaError when a body holds too many values; each takes a byte, so a short one needs no counting."""
    if len(body) > MAX_VALUES:
        check_kinds(value)  # bounds the nesting, too
        if _count(value) > MAX_VALUES:
            raise SchemaError(f"{name}: more than {MAX_VALUES} values")


def _count(value: object) -> int:
    """How many values these are, every array and everything in it, counted until there are too many."""
    count = 1
    if type(value) is tuple:
        count += len(value)
        for item in value:
            if type(item) is tuple:
                count += _count(item) - 1
            if count > MAX_VALUES:
                break
    return count


class _Illegal(Exception):
    """A value that its field does not allow; `path` grows on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def told(self, root: str) -> str:
        return f"{root}{self.path}: {self.reason}"


class _Plan:
    """Both directions of one type."""

    __slots__ = ("from_wire", "to_wire")

    def __init__(self, to_wire: Step, from_wire: Step) -> None:
        self.to_wire = to_wire
        self.from_wire = from_wire


_PLANS: dict[type[object], _Plan] = {}


def _plan(cls: type[object]) -> _Plan:
    plan = _PLANS.get(cls)
    if plan is None:
        plan = _PLANS[cls] = _compile(cls)
    return plan


def _compile(cls: type[object]) -> _Plan:
    """Make the plan of a dataclass; raises TypeError for a class whose annotations say too little."""
    name = cls.__name__
    if not is_dataclass(cls):
        raise TypeError(f"{name} is no message")
    hints = get_type_hints(cls, include_extras=True)
    names = tuple(field.name for field in fields(cls))
    plans = tuple(_plan_of(hints[field]) for field in names)
    readers = tuple(plan.from_wire for plan in plans)
    writers = tuple(plan.to_wire for plan in plans)
    build = cast(Callable[..., object], cls)
    values_of = attrgetter(*names) if len(names) > 1 else _single(names[0])

    def to_wire(message: object) -> object:
        if type(message) is not cls:
            raise _Illegal(f"{name} wanted, {type(message).__name__} found")
        return _each(writers, values_of(message), names)

    def from_wire(value: object) -> object:
        if type(value) is not tuple:
            raise _Illegal(f"array wanted, {_kind(value)} found")
        if len(value) != len(readers):
            raise _Illegal(f"{len(readers)} fields wanted, {len(value)} found")
        return build(*_each(readers, value, names))

    return _Plan(to_wire, from_wire)


def _single(name: str) -> Callable[[object], tuple[object, ...]]:
    return lambda message: (getattr(message, name),)


def _each(steps: Sequence[Step], values: tuple[object, ...], names: tuple[str, ...]) -> tuple[object, ...]:
    done: list[object] = []
    try:
        for step, value in zip(steps, values, strict=True):
            done.append(step(value))
    except _Illegal as exc:
        exc.path = f".{names[len(done)]}{exc.path}"
        raise
    return tuple(done)


def _plan_of(hint: Any) -> _Plan:
    """The plan of one annotation: a dataclass, a bool, or an Annotated int, bytes, str or tuple."""
    if hint is bool:
        return _Plan(_check_bool, _check_bool)
    if isinstance(hint, type) and is_dataclass(hint):
        return _plan(hint)
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{hint} does not say which values are legal")
    base, *marks = get_args(hint)
    base = getattr(base, "__supertype__", base)
    size = next(mark for mark in marks if isinstance(mark, Size))
    if get_origin(base) is tuple:
        return _tuple_plan(_plan_of(get_args(base)[0]), size)
    check = _scalar_check(base, size, marks)
    return _Plan(check, check)


def _scalar_check(base: type, size: Size, marks: Sequence[object]) -> Step:
    if base is int:
        return _int_check(size)
    if base is bytes:
        lengths = next((mark.allowed for mark in marks if isinstance(mark, Lengths)), None)
        return _bytes_check(size, lengths)
    if base is str:
        pattern = next((re.compile(mark.regex) for mark in marks if isinstance(mark, Pattern)), None)
        return _str_check(size, pattern)
    raise TypeError(f"fields of type {base} have no encoding")


def _check_bool(value: object) -> object:
    if type(value) is not bool:
        raise _Illegal(f"bool wanted, {_kind(value)} found")
    return value


def _int_check(size: Size) -> Step:
    low, high = size.low, size.high

    def check(value: object) -> object:
        if type(value) is not int:
            raise _Illegal(f"integer wanted, {_kind(value)} found")
        if not low <= value <= high:
            raise _Illegal(f"{low} .. {high} wanted, {value} found")
        return value

    return check


def _bytes_check(size: Size, lengths: tuple[int, ...] | None) -> Step:
    low, high = size.low, size.high

    def check(value: object) -> object:
        if type(value) is not bytes:
            raise _Illegal(f"bytes wanted, {_kind(value)} found")
        if not low <= len(value) <= high or (lengths is not None and len(value) not in lengths):
            wanted = " or ".join(map(str, lengths)) if lengths is not None else f"{low} .. {high}"
            raise _Illegal(f"{wanted} bytes wanted, {len(value)} found")
        return value

    return check


def _str_check(size: Size, pattern: re.Pattern[str] | None) -> Step:
    low, high = size.low, size.high
    matches = None if pattern is None else pattern.fullmatch

    def check(value: object) -> object:
        if type(value) is not str:
            raise _Illegal(f"string wanted, {_kind(value)} found")
        try:
            length = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:
            raise _Illegal("the string holds a lone surrogate") from None
        if not low <= length <= high:
            raise _Illegal(f"{low} .. {high} bytes of UTF-8 wanted, {length} found")
        if matches is not None and matches(value) is None:
            raise _Illegal("the string holds a character that is not allowed there")
        return value

    return check


def _tuple_plan(item: _Plan, size: Size) -> _Plan:
    def through(step: Step) -> Step:
        def check(values: object) -> object:
            if type(values) is not tuple:
                raise _Illegal(f"array wanted, {_kind(values)} found")
            if not size.low <= len(values) <= size.high:
                raise _Illegal(f"{size.low} .. {size.high} items wanted, {len(values)} found")
            done: list[object] = []
            try:
                for value in values:
                    done.append(step(value))
            except _Illegal as exc:
                exc.path = f"[{len(done)}]{exc.path}"
                raise
            return tuple(done)

        return check

    return _Plan(through(item.to_wire), through(item.from_wire))


def _kind(value: object) -> str:
    return type(value).__name__
