"""Parameters that were meant, and would be dropped in silence: misspelt, misplaced, or called as elsewhere.

Names that nobody knows are let through, because clients send new ones all the time. A limit must not go with them: a request
for `jurisdictions: ["DE"]` that ran anywhere would look as if it had been heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Final

from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.constants import MAX_NAMES_COMPARED
from ryvion_node.proxy.validation import unsupported

CALLED_OTHERWISE: Final = {
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
}
"""What other endpoints and servers call a parameter -> what it is called here."""
_SAID_OTHERWISE: Final = {
    "extra_body": "is an argument of the Python SDK; send what it holds beside the other parameters",
    "provider": "is not read here; 'ryvion' and 'jurisdiction' say whom to buy from",
}
"""What holds limits elsewhere -> how they are said here."""
LIMITS: Final = ("jurisdiction", "ryvion")
CHAT_LIMITS: Final = (*LIMITS, "knowledge_base")
_LIKENESS: Final = 0.8
"""One letter of `ryvion` may be wrong, two of `jurisdiction`; `version` and `region` are other words."""


def refuse_mistaken(unknown: Mapping[str, object], limits: tuple[str, ...]) -> None:
    """Raise ApiError for a name in `unknown` that was meant as one of ours; `limits` are those which must not be missed."""
    for name in islice(unknown, MAX_NAMES_COMPARED):
        problem = None if unknown[name] is None else _problem(name, limits)
        if problem is not None:
            raise unsupported(name, problem)


def _problem(name: str, limits: tuple[str, ...]) -> str | None:
    if name in _SAID_OTHERWISE:
        return _SAID_OTHERWISE[name]
    if name in CALLED_OTHERWISE:
        return f"is called '{CALLED_OTHERWISE[name]}' here"
    if name in PreferencesObject.model_fields:
        return "belongs into the object 'ryvion'"
    close = get_close_matches(name.lower(), limits, n=1, cutoff=_LIKENESS)
    return f"is not known here; perhaps '{close[0]}' is meant" if close else None
