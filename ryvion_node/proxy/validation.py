"""What is wrong with a body, as the error object that clients know: the kind of problem, and the path to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.errors import ApiError

_UNION_TAG: Final = re.compile(r"<.*>")
"""Tags of unions, which pydantic puts into an error's path and no client knows."""


def api_error(invalid: ValidationError) -> ApiError:
    """The first problem as an error object: its kind, and where it is as `messages[0].role`."""
    first = invalid.errors(include_url=False, include_context=False)[0]
    kind, problem = first["type"], first["msg"]
    if kind == "json_invalid":
        return ApiError(
            "invalid_json", f"The request body is not valid JSON: {problem.removeprefix('Invalid JSON: ')}."
        )
    param = _path(first["loc"])
    if kind == "missing":
        return missing(param)
    if kind == "extra_forbidden":
        known = PreferencesObject.model_fields if first["loc"][:-1] == ("ryvion",) else ()
        return unsupported(param, f"is not known here; {_there_are(known)}")
    wrong_type = kind.endswith("_type") or (kind == "literal_error" and not isinstance(first["input"], str))
    code = "invalid_type" if wrong_type else "invalid_value"
    where = f"'{param}'" if param else "The request body"
    return ApiError(code, _sentence(f"{where}: {problem.replace(' after validation', '')}"), param=param or None)


def missing(param: str) -> ApiError:
    """A field that must be there is not."""
    return ApiError("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)


def invalid_value(param: str, problem: str) -> ApiError:
    """A field holds what it may not; `problem` goes on after its name."""
    return ApiError("invalid_value", _sentence(f"'{param}' {problem}"), param=param)


def unsupported(param: str, problem: str) -> ApiError:
    """A field asks for what is not done here; `problem` goes on after its name."""
    return ApiError("unsupported_parameter", f"'{param}' {problem}.", param=param)


def refuse_not_honoured(given: dict[str, object], table: dict[str, tuple[object, ...]], where: str) -> None:
    """Raise ApiError for a parameter in `table` that holds none of its harmless values."""
    for name in given.keys() & table.keys():
        value = given[name]
        if value is not None and not any(_same(value, harmless) for harmless in table[name]):
            raise unsupported(f"{where}{name}", "would change the answer and is not supported here; leave it out")


def _sentence(text: str) -> str:
    """The text with its full stop, unless it ends as a question."""
    return text if text.endswith("?") else f"{text}."


def _there_are(known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f"there are {names}" if names else "perhaps it is misspelt"


def _same(value: object, harmless: object) -> bool:
    """Equal, and not merely because Python says True == 1."""
    return value == harmless and isinstance(value, bool) == isinstance(harmless, bool)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not _UNION_TAG.fullmatch(step):
            path += f".{step}" if path else step
    return path
