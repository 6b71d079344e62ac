"""The tools that a job offers to the model, checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ryvion_node.engine.constants import MAX_JSON_DEPTH
from ryvion_node.engine.wire import WireTools

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class ToolsRefused(Exception):
    """A tool's name or parameters are malformed, or the choice makes no sense."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: dict[str, object]
    """A JSON Schema."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What may, and what must be called. Without tools nothing is looked for in the answer."""

    tools: tuple[Tool, ...] = ()
    must: tuple[Tool, ...] = ()
    """One of these must be called; empty: none has to."""
    parallel: bool = True

    @staticmethod
    def of(wired: WireTools) -> Offer:
        """Raises ToolsRefused."""
        tools, choice, name, parallel = wired
        if choice == "none":
            return NO_OFFER
        offered = tuple(_tool(*tool) for tool in tools)
        if len({tool.name for tool in offered}) < len(offered):
            raise ToolsRefused("two tools of the same name")
        match choice:
            case "auto":
                must: tuple[Tool, ...] = ()
            case "required":
                must = offered
            case "named":
                must = tuple(tool for tool in offered if tool.name == name)
            case _:
                raise ToolsRefused("tool choice is none, auto, required or named")
        if not must and choice != "auto":
            raise ToolsRefused("a tool must be called that is not there")
        return Offer(offered, must, parallel)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.tools)


NO_OFFER: Final = Offer()


def is_name(text: str) -> bool:
    """May a function be called so?"""
    return _NAME.fullmatch(text) is not None


def call_id(prompt: Sequence[int], index: int) -> str:
    """The id of an answer's call number `index`: another in each turn of a conversation, the same in each repetition."""
    digest = hashlib.sha256(b"ryvion/call-id\0" + repr((index, *prompt)).encode())
    return f"call_{digest.hexdigest()[:24]}"


def short_id(text: str) -> str:
    """Nine letters and digits for an id of any kind."""
    if len(text) == 9 and text.isascii() and text.isalnum():
        return text
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return "".join(_ALPHABET[number // 36**place % 36] for place in range(9))


def call_arguments(text: str) -> dict[str, object] | None:
    """The arguments of a call; None when they are no JSON object that we would read."""
    try:
        value = json.loads(text or "{}", parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _depth_fits(value) else None


def _tool(name: str, description: str, parameters: str) -> Tool:
    if not is_name(name):
        raise ToolsRefused("a tool's name is 1 to 64 letters, digits, _ and -")
    schema = call_arguments(parameters)
    if schema is None:
        raise ToolsRefused(
            f"the parameters of {name} are no JSON Schema: an object, at most {MAX_JSON_DEPTH} levels deep, is expected"
        )
    return Tool(name, description, schema or {"type": "object", "properties": {}})


def _depth_fits(value: object) -> bool:
    level: list[object] = [value]
    for _depth in range(MAX_JSON_DEPTH):
        level = [
            item
            for held in level
            for item in (held.values() if isinstance(held, dict) else held if isinstance(held, list) else ())
            if isinstance(item, dict | list)
        ]
        if not level:
            return True
    return False


def _no_number(text: str) -> object:
    raise ValueError(text)
