"""A response as it grows: its output items, and the events that tell of each step.

Items come one after the other: thoughts, a message, calls. Each is added empty, filled, and closed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ryvion_node.market.interface import Outcome, Piece
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.parts import token_logprob_json
from ryvion_node.proxy.responses_input import REASONING_PREFIX
from ryvion_protocol.messages import CallPiece, TokenLogprob

Event = dict[str, object]
Kind = Literal["reasoning", "summary", "message", "function_call"]
"""`summary` is reasoning, shown as its own summary."""
_ITEM_PREFIX: Final[dict[Kind, str]] = {
    "reasoning": REASONING_PREFIX,
    "summary": REASONING_PREFIX,
    "message": "msg_",
    "function_call": "fc_",
}
_PART: Final[dict[Kind, str]] = {
    "reasoning": "response.content_part",
    "summary": "response.reasoning_summary_part",
    "message": "response.content_part",
}
_DELTA: Final[dict[Kind, str]] = {
    "reasoning": "response.reasoning_text",
    "summary": "response.reasoning_summary_text",
    "message": "response.output_text",
    "function_call": "response.function_call_arguments",
}


@dataclass(slots=True)
class _Open:
    """The item that is being written."""

    kind: Kind
    id: str
    index: int
    call: dict[str, str] = field(default_factory=dict)
    """Its id, and what it calls."""
    texts: list[str] = field(default_factory=list)
    logprobs: list[dict[str, object]] = field(default_factory=list)

    @property
    def place(self) -> dict[str, object]:
        """Where an event about its content belongs."""
        place: dict[str, object] = {"item_id": self.id, "output_index": self.index}
        if self.kind == "function_call":
            return place
        return place | ({"summary_index": 0} if self.kind == "summary" else {"content_index": 0})

    def part(self) -> dict[str, object]:
        """Its content."""
        text = "".join(self.texts)
        if self.kind != "message":
            return {"type": "summary_text" if self.kind == "summary" else "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}

    def item(self, status: str, *, with_part: bool = True) -> dict[str, object]:
        """The item itself."""
        kind = "reasoning" if self.kind == "summary" else self.kind
        item: dict[str, object] = {"id": self.id, "type": kind, "status": status}
        if self.call:
            return item | self.call | {"arguments": "".join(self.texts)}
        parts = [self.part()] if with_part else []
        if self.kind == "message":
            return item | {"role": "assistant", "content": parts}
        return item | ({"summary": parts} if self.kind == "summary" else {"summary": [], "content": parts})


class ResponseBuilder:
    """One response. `head` is what it says from beginning to end; events have no sequence numbers yet.

    `namespaced` are the functions in namespaces: how the model calls them -> namespace and name.
    """

    def __init__(self, head: dict[str, object], namespaced: Mapping[str, tuple[str, str]], *, summary: bool) -> None:
        self._head = head
        self._namespaced = namespaced
        self._thoughts: Kind = "summary" if summary else "reasoning"
        self._items: list[dict[str, object]] = []
        self._open: _Open | None = None
        self._logprobs: list[TokenLogprob] = []
        """Of tokens whose text is still to come."""

    def begin(self, ryvion: dict[str, object]) -> Iterator[Event]:
        """The response, empty."""
        response = self._response("in_progress")
        yield {"type": "response.created", "response": response | {"ryvion": ryvion}}
        yield {"type": "response.in_progress", "response": response}

    def piece(self, piece: Piece) -> Iterator[Event]:
        """A piece of the answer."""
        if piece.reasoning:
            yield from self._write(self._thoughts, piece.reasoning)
        elif not piece.calls:
            self._logprobs += piece.logprobs
        if piece.content:
            yield from self._write("message", piece.content)
        for call in piece.calls:
            if call.id:
                yield from self._close("completed")
                yield from self._add("function_call", self._call(call))
            if call.arguments:
                yield from self._write("function_call", call.arguments)

    def end(self, outcome: Outcome, usage: dict[str, object], ryvion: dict[str, object]) -> Iterator[Event]:
        """Close what is open; the last event holds the whole response."""
        status = "incomplete" if outcome.finish_reason == "length" else "completed"
        if not self._items and self._open is None:
            yield from self._add("message")
        yield from self._close(status)
        response = self._response(status) | {"usage": usage, "ryvion": ryvion}
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            response["completed_at"] = int(time.time())
        yield {"type": f"response.{status}", "response": response}

    def fail(self, error: ApiError) -> Iterator[Event]:
        """The response as far as it came, and the error in the one form that every client raises on."""
        if self._open is not None:
            self._items.append(self._open.item("incomplete"))
            self._open = None
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        failure = {"code": code, "message": error.message}
        yield {"type": "response.failed", "response": self._response("failed") | {"error": failure}}
        about = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        yield about | {"type": "error", "error": about}

    def _write(self, kind: Kind, text: str) -> Iterator[Event]:
        if self._open is None or self._open.kind != kind:
            yield from self._close("completed")
            yield from self._add(kind)
        item = self._open
        assert item is not None
        item.texts.append(text)
        event: Event = {"type": f"{_DELTA[kind]}.delta", **item.place, "delta": text}
        if kind == "message":
            logprobs = [token_logprob_json(one) for one in self._logprobs]
            self._logprobs.clear()
            item.logprobs += logprobs
            event["logprobs"] = logprobs
        yield event

    def _call(self, first: CallPiece) -> dict[str, str]:
        namespace, name = self._namespaced.get(first.name, ("", first.name))
        return {"call_id": first.id, "name": name} | ({"namespace": namespace} if namespace else {})

    def _add(self, kind: Kind, call: dict[str, str] | None = None) -> Iterator[Event]:
        index = len(self._items)
        suffix = str(self._head["id"]).partition("_")[2]
        item = self._open = _Open(kind, f"{_ITEM_PREFIX[kind]}{suffix}{index:02x}", index, call or {})
        added = item.item("in_progress", with_part=False)
        yield {"type": "response.output_item.added", "output_index": index, "item": added}
        if kind != "function_call":
            yield {"type": f"{_PART[kind]}.added", **item.place, "part": item.part()}

    def _close(self, status: str) -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        self._open = None
        text = "".join(item.texts)
        done: Event = {"type": f"{_DELTA[item.kind]}.done", **item.place}
        if item.call:
            yield done | {"name": item.call["name"], "arguments": text}
        else:
            yield done | ({"text": text, "logprobs": item.logprobs} if item.kind == "message" else {"text": text})
            yield {"type": f"{_PART[item.kind]}.done", **item.place, "part": item.part()}
        self._items.append(item.item(status))
        yield {"type": "response.output_item.done", "output_index": item.index, "item": self._items[-1]}

    def _response(self, status: str) -> dict[str, object]:
        return self._head | {"status": status, "output": list(self._items)}
