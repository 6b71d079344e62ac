"""Tools for models whose template says nothing of them: told in the system message, calls and answers as plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ryvion_node.engine.wire import WireCall, WireTurn
from ryvion_node.engine.worker.speech.families import TAUGHT
from ryvion_node.engine.worker.speech.tools import Offer, call_arguments


def taught_turns(turns: Sequence[WireTurn], offer: Offer, *, system: bool) -> tuple[WireTurn, ...]:
    """The same conversation without any tool or call in it. `system`: the template has a place for a system message."""
    told: list[WireTurn] = []
    for role, content, name, calls, _answers in turns:
        if role == "tool":
            text = f"<tool_response>\n{content}\n</tool_response>"
            if told and told[-1][0] == "user" and told[-1][1].endswith("</tool_response>"):
                text = f"{told.pop()[1]}\n{text}"
            told.append(("user", text, "", (), ""))
        else:
            text = "\n".join((*filter(None, (content,)), *map(_written, calls)))
            told.append((role, text, name, (), ""))
    return _introduced(told, _lesson(offer), system) if offer.tools else tuple(told)


def _introduced(turns: list[WireTurn], lesson: str, system: bool) -> tuple[WireTurn, ...]:
    first = turns[0] if turns else ("", "", "", (), "")
    if first[0] in ("system", "developer"):
        return (first[0], f"{first[1]}\n\n{lesson}".lstrip("\n"), *first[2:]), *turns[1:]
    if first[0] == "user" and not system:
        return ("user", f"{lesson}\n\n{first[1]}", *first[2:]), *turns[1:]
    return ("system" if system else "user", lesson, "", (), ""), *turns


def _lesson(offer: Offer) -> str:
    described = (
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}, ensure_ascii=False
        )
        for tool in offer.tools
    )
    example = '{"name": "the function", "arguments": {"its": "arguments"}}'
    return "\n".join(
        (
            "You can call these functions:",
            *described,
            "",
            "To call one, write this in place of an answer:",
            f"{TAUGHT.begin}{TAUGHT.pad}{example}{TAUGHT.pad}{TAUGHT.end}",
            "What it returns comes between <tool_response> and </tool_response>.",
        )
    )


def _written(call: WireCall) -> str:
    _id, name, text = call
    values = call_arguments(text)
    made = {"name": name, TAUGHT.arguments: text if values is None else values}
    return f"{TAUGHT.begin}{TAUGHT.pad}{json.dumps(made, ensure_ascii=False)}{TAUGHT.pad}{TAUGHT.end}"
