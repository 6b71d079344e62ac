"""How families of models write thoughts and tool calls, told from a chat template's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CallStyle:
    """How calls are written: JSON between two markers."""

    begin: str
    end: str
    """Empty: the JSON's own end."""
    arguments: str = "arguments"
    """The key that holds them."""
    listed: bool = False
    """One list holds all calls; otherwise each call has markers of its own."""
    bare: bool = False
    """An answer that begins with { is a call even without the marker."""
    separator: str = ""
    """Between a call's name and its arguments, where JSON holds the arguments only."""
    id_marker: str = ""
    """Between name and separator there may be this, and an id that the model made up."""
    pad: str = ""
    """What the model was trained to put between markers and JSON."""


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What stands around the thoughts before an answer."""

    begin: str
    end: str


HERMES: Final = CallStyle("<tool_call>", "</tool_call>", pad="\n")
LLAMA: Final = CallStyle("<|python_tag|>", "", arguments="parameters", bare=True)
MISTRAL: Final = CallStyle("[TOOL_CALLS]", "", listed=True)
MISTRAL_NAMED: Final = CallStyle("[TOOL_CALLS]", "", separator="[ARGS]", id_marker="[CALL_ID]")
PHI: Final = CallStyle("<|tool_call|>", "<|/tool_call|>", listed=True)
TAUGHT: Final = HERMES
"""What models are asked to write whose template says nothing of tools."""

_THOUGHTS: Final = (Thoughts("<think>", "</think>"), Thoughts("[THINK]", "[/THINK]"))


def call_style(template: str) -> CallStyle | None:
    """None: this template says nothing of calls, or speaks of them in a way that we do not read."""
    if "[TOOL_CALLS]" in template:
        return MISTRAL_NAMED if MISTRAL_NAMED.separator in template else MISTRAL
    if "<|tool_call|>" in template:
        return PHI if PHI.end in template else None
    if "<tool_call>" in template:
        return None if "<function=" in template or "<arg_key>" in template else HERMES
    if "<|python_tag|>" in template or '"parameters": dictionary of argument name' in template:
        return LLAMA
    return None


def thoughts(template: str) -> Thoughts | None:
    """None: models of this template do not think aloud."""
    return next((style for style in _THOUGHTS if style.end in template), None)
