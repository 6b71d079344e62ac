"""The conversation of a response request: items, translated into the turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Tag

from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.validation import missing, unsupported

REASONING_PREFIX: Final = "rs_"
"""Begins the ids of thoughts, in answers of ours as of others."""
_SYSTEM: Final = frozenset({"system", "developer"})
_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})


class Part(Strict):
    """One part of an item's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


def _text_or_parts(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Parts = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[Part], Tag("<parts>")], Discriminator(_text_or_parts)]


class Item(Strict):
    """A message, a call, the result of one, or thoughts; which keys it has depends on `type`."""

    type: str | None = None
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Parts | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: Parts | None = None


Input = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[Item], Tag("<parts>")], Discriminator(_text_or_parts)]


@dataclass(slots=True)
class Turn:
    """A turn in the making."""

    where: str
    """Where the client wrote it, for errors."""
    role: str
    content: str | None = None
    calls: list[tuple[str, Item]] = field(default_factory=list)
    """With where each stands."""
    call_id: str | None = None

    def to_chat(self) -> dict[str, object]:
        """As a chat message."""
        message: dict[str, object] = {"role": self.role, "content": self.content}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": joined_name(call.namespace, call.name or ""), "arguments": call.arguments},
                }
                for _, call in self.calls
            ]
        if self.call_id is not None:
            message["tool_call_id"] = self.call_id
        return message


def joined_name(namespace: str | None, name: str) -> str:
    """A function's name where there are no namespaces."""
    return f"{namespace}__{name}" if namespace else name


def turns_of(instructions: str | None, given: str | list[Item]) -> list[Turn]:
    """The conversation; raises ApiError for items that cannot be translated.

    Calls join the assistant's message before them: a chat has one turn where responses have several items. Their outputs
    go right behind that turn, wherever they stand. Instructions
    that follow each other become one system message, as many templates have a place for one only. Thoughts are left
    out, as templates leave those of earlier turns out.
    """
    turns = [Turn("instructions", "system", instructions)] if instructions else []
    if isinstance(given, str):
        return [*turns, Turn("input", "user", given)]
    for index, item in enumerate(given):
        where = f"input[{index}]"
        kind = item.type or ("message" if item.role else "item_reference")
        match kind:
            case "message":
                turn = _message(item, where)
                if turn.role in _SYSTEM and turns and turns[-1].role in _SYSTEM:
                    turns[-1].content = f"{turns[-1].content}\n\n{turn.content}"
                else:
                    turns.append(turn)
            case "function_call":
                _required(item, where, "call_id", "name", "arguments")
                if not turns or turns[-1].role != "assistant":
                    turns.append(Turn(where, "assistant"))
                turns[-1].calls.append((where, item))
            case "function_call_output":
                _required(item, where, "call_id", "output")
                turn = Turn(where, "tool", _text(item.output, f"{where}.output"), call_id=item.call_id)
                turns.insert(_behind_call(turns, item.call_id), turn)
            case "reasoning":
                continue
            case "item_reference" if (item.id or "").startswith(REASONING_PREFIX):
                continue
            case "item_reference":
                problem = (
                    "refers to an item of an earlier answer, and answers are not stored here; send the item itself"
                )
                raise unsupported(where, f"{problem} (with `store` false, clients do)")
            case _:
                problem = f"is '{kind:.40}'; messages, function calls, their outputs and reasoning are supported"
                raise unsupported(f"{where}.type", problem)
    if not turns:
        raise missing("input")
    return turns


def _behind_call(turns: Sequence[Turn], call_id: str | None) -> int:
    """Where the output of a call goes; the end, when nobody made that call."""
    for index in reversed(range(len(turns))):
        if any(call.call_id == call_id for _, call in turns[index].calls):
            behind = index + 1
            while behind < len(turns) and turns[behind].role == "tool":
                behind += 1
            return behind
    return len(turns)


def _message(item: Item, where: str) -> Turn:
    _required(item, where, "role", "content")
    return Turn(where, item.role or "", _text(item.content, f"{where}.content"))


def _required(item: Item, where: str, *names: str) -> None:
    for name in names:
        if getattr(item, name) is None:
            raise missing(f"{where}.{name}")


def _text(content: str | list[Part] | None, where: str) -> str:
    """Texts stand on lines of their own, as in chats."""
    if isinstance(content, list):
        return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    return content or ""


def _part(part: Part, where: str) -> str:
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type not in _TEXT_PARTS:
        problem = f"'{where}' is of type '{part.type:.40}'; only text parts are supported."
        raise ApiError("unsupported_parameter", problem, param=f"{where}.type")
    if part.text is None:
        raise missing(f"{where}.text")
    return part.text
