"""Values that occur in request bodies, strictly typed; unknown keys are accepted everywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Tag


class Strict(BaseModel):
    """Base of all bodies: no conversions, no NaN, and no input in an error's text."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class TextPart(Strict):
    """One part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


def _text_or_parts(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>")], Discriminator(_text_or_parts)
]
StringOrList = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<parts>")], Discriminator(_text_or_parts)
]


def as_tuple(value: str | list[str] | None) -> tuple[str, ...]:
    """A StringOrList, however it was written."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
