"""Tools for models whose template says nothing of them: told in the system message, calls and answers as plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ryvion_node.engine.wire import WireCall, WireTurn
from ryvion_node.engine.worker.speech.families import TAUGHT
from ryvion_node.engine.worker.speech.tools import Offer, call_arguments

_SYSTEM: Final = ("system", "developer")


def taught_turns(turns: Sequence[WireTurn], offer: Offer) -> tuple[WireTurn, ...]:
    """The same conversation without any tool or call in it."""
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
    if not offer.tools:
        return tuple(told)
    if told and told[0][0] in _SYSTEM:
        role, content, name, *_rest = told.pop(0)
        return (role, f"{content}\n\n{_lesson(offer)}".lstrip("\n"), name, (), ""), *told
    return ("system", _lesson(offer), "", (), ""), *told


def without_system(turns: Sequence[WireTurn]) -> tuple[WireTurn, ...]:
    """For templates without a place for it: the system message opens the first user message instead."""
    match turns:
        case [(role, rule, _, _, _), ("user", content, name, _, _), *rest] if role in _SYSTEM:
            return ("user", f"{rule}\n\n{content}".strip("\n"), name, (), ""), *rest
        case [(role, rule, name, _, _), *rest] if role in _SYSTEM:
            return ("user", rule, name, (), ""), *rest
        case _:
            return tuple(turns)


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
