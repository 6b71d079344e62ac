"""Asking for responses, and reading their events by the official client's types."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from proxy_harness import Endpoint, Reply
from pydantic import TypeAdapter

from ryvion_node.market.fake import Script, calls
from ryvion_node.market.interface import Piece

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
AGENTS: Any = {
    "type": "namespace",
    "name": "agents",
    "description": "Tools for agents.",
    "tools": [{"type": "function", "name": "close", "description": "Closes one.", "parameters": {"type": "object"}}],
}

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ALL = Script(
    (Piece(reasoning="h"), Piece(reasoning="m"), Piece("It "), Piece("is"), *calls("weather", '{"city":', '"Bern"}')),
    finish_reason="tool_calls",
)


async def ask(endpoint: Endpoint, model: str = "echo", **extra: object) -> Reply:
    body = {"model": model, "input": "hi", **extra}
    return await endpoint.ask("POST", "/v1/responses", body, authorization="Bearer sk-buyer")


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """The events of a stream, each checked against the client's own types and its name."""
    events = []
    for part in reply.body.decode().removesuffix("\n\n").split("\n\n"):
        if part.startswith(":"):
            continue
        name, data = part.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        if "response" in event:
            Response.model_validate(event["response"])
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events
