"""The turns of a conversation, from the client's form to the wire's."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Final, Literal

from ryvion_node.proxy.constants import MAX_NAME_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.shapes import Content, Strict, TextPart
from ryvion_node.proxy.validation import invalid_value, missing, refuse_not_honoured, unsupported
from ryvion_protocol.constants import MAX_TOOL_CALLS
from ryvion_protocol.messages import ChatMessage, ToolCall
from ryvion_protocol.schema import as_label

_NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {"audio": (), "function_call": ()}
_ROLE_ON_THE_WIRE: Final = {"developer": "system"}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CalledFunction(Strict):
    """What an assistant turn called."""

    name: str
    arguments: str


class AssistantCall(Strict):
    """One call that an assistant turn made."""

    id: str
    type: str
    function: CalledFunction | None = None


class Message(Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[AssistantCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    """What an assistant said instead of content, in an answer of another provider's."""


def chat_message(message: Message, where: str) -> ChatMessage:
    """The turn as it is sold; raises ApiError for what is wrong with it, by its path under `where`."""
    refuse_not_honoured(message.model_extra or {}, _NOT_HONOURED, f"{where}.")
    if message.role == "function":
        raise unsupported(f"{where}.role", "is 'function', which is not supported; send the result with role 'tool'")
    calls = _calls(message, where)
    content = message.content
    if content is None and message.role == "assistant":
        content = message.refusal
    if content is None and not calls:
        raise missing(f"{where}.content")
    if message.role == "tool" and not message.tool_call_id:
        raise missing(f"{where}.tool_call_id")
    if message.role != "tool" and message.tool_call_id:
        raise invalid_value(f"{where}.tool_call_id", "stands in a message that is no tool's")
    return ChatMessage(
        role=_ROLE_ON_THE_WIRE.get(message.role, message.role),
        content=_text(content, f"{where}.content"),
        name=_label(message.name or "", f"{where}.name"),
        tool_calls=calls,
        tool_call_id=_label(message.tool_call_id or "", f"{where}.tool_call_id"),
    )


def check_tool_turns(turns: Sequence[ChatMessage]) -> None:
    """Raise ApiError unless each call has its result right behind the turn that made it, as the OpenAI API wants it."""
    calls: tuple[ToolCall, ...] = ()
    caller, answered = 0, set[str]()
    for index, turn in enumerate(turns):
        if turn.role == "tool":
            if all(call.id != turn.tool_call_id for call in calls):
                raise invalid_value(f"messages[{index}].tool_call_id", "names no call that was made just before")
            answered.add(turn.tool_call_id)
        else:
            _check_answered(calls, answered, caller)
            calls, caller, answered = turn.tool_calls, index, set()
    _check_answered(calls, answered, caller)


def _check_answered(calls: Sequence[ToolCall], answered: Set[str], caller: int) -> None:
    for number, call in enumerate(calls):
        if call.id not in answered:
            problem = f"(id '{call.id}') has no result; one must follow for each call before the conversation goes on"
            raise invalid_value(f"messages[{caller}].tool_calls[{number}]", problem)


def check_name(name: str, where: str) -> str:
    """The name of a function or of a schema, when it is one."""
    if not _NAME.fullmatch(name):
        raise invalid_value(where, "must be 1 to 64 letters, digits, '_' or '-'")
    return name


def _text(content: str | list[TextPart] | None, where: str) -> str:
    """A message's text; parts stand on lines of their own."""
    if isinstance(content, list):
        return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    return content or ""


def _part(part: TextPart, where: str) -> str:
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type != "text":
        problem = f"'{where}' is of type '{part.type:.40}'; only text parts are supported."
        raise ApiError("unsupported_parameter", problem, param=f"{where}.type")
    if part.text is None:
        raise missing(f"{where}.text")
    return part.text


def _calls(message: Message, where: str) -> tuple[ToolCall, ...]:
    given = message.tool_calls or []
    where = f"{where}.tool_calls"
    if given and message.role != "assistant":
        raise invalid_value(where, "stand in a message that is no assistant's")
    if len(given) > MAX_TOOL_CALLS:
        raise invalid_value(where, f"holds {len(given)} calls; at most {MAX_TOOL_CALLS} are allowed")
    return tuple(_call(call, f"{where}[{index}]") for index, call in enumerate(given))


def _call(call: AssistantCall, where: str) -> ToolCall:
    if call.type != "function":
        raise unsupported(f"{where}.type", f"is '{call.type:.40}'; only function calls are supported")
    if call.function is None:
        raise missing(f"{where}.function")
    if not call.id:
        raise invalid_value(f"{where}.id", "is empty")
    name = check_name(call.function.name, f"{where}.function.name")
    return ToolCall(_label(call.id, f"{where}.id"), name, call.function.arguments)


def _label(text: str, where: str) -> str:
    """A short text that may go on the wire as it is."""
    if len(text.encode()) > MAX_NAME_BYTES:
        raise invalid_value(where, f"is longer than {MAX_NAME_BYTES} bytes")
    if as_label(text) != text:
        raise invalid_value(where, "holds control characters")
    return text
