"""Turns pydantic's validation errors into lines that say which key of the file is wrong, where, and what to write."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
_MAX_PROBLEMS = 20


def describe_problems(error: ValidationError, model: type[BaseModel], text: str) -> list[str]:
    """One line per problem; `text` is the TOML that was read, to find line numbers in."""
    details = error.errors(include_url=False, include_input=False)
    lines = [_describe(problem, model, text) for problem in details[:_MAX_PROBLEMS]]
    if len(details) > _MAX_PROBLEMS:
        lines.append(f"and {len(details) - _MAX_PROBLEMS} more")
    return lines


def _describe(problem: ErrorDetails, model: type[BaseModel], text: str) -> str:
    location = problem["loc"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key" + _suggestion(str(location[-1]), _section_at(model, location[:-1]))
    where = _shown(location)
    line = _line_of(location, text)
    return ": ".join(part for part in (f"line {line}" if line else "", where, message) if part)


def _suggestion(key: str, section: type[BaseModel] | None) -> str:
    if section is None:
        return ""
    legal = list(section.model_fields)
    close = get_close_matches(key.lower().replace("-", "_"), legal, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; legal here: {', '.join(legal)}"


def _section_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The section class that a location leads to; list positions are skipped."""
    current: type[BaseModel] | None = model
    for step in location:
        if isinstance(step, int) or current is None:
            continue
        field = current.model_fields.get(step)
        current = None if field is None else _model_in(field.annotation)
    return current


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _shown(location: Location) -> str:
    """("executor", "models", 0, "slot") -> `executor.models[0].slot`."""
    shown = ""
    for step in location:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}" if shown else step
    return shown


def _line_of(location: Location, text: str) -> int | None:
    """Line of the key as it is usually written, `key = ...` under its table's heading; None when it is not."""
    names = [step for step in location if isinstance(step, str)]
    if not names:
        return None
    wanted_table, key = ".".join(names[:-1]), names[-1]
    occurrence = next((step for step in location if isinstance(step, int)), 0)
    table, seen = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        heading = re.match(r"\s*\[{1,2}\s*([\w.-]+)\s*\]{1,2}", line)
        if heading:
            table = heading[1]
            if table == ".".join(names):
                return number
            seen += table == wanted_table
        elif (
            re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line) and table == wanted_table and seen in (0, occurrence + 1)
        ):
            return number
    return None
