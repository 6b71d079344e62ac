"""Renders a chat template without ever showing it the contents.

Each content is replaced by a random mark, the template is rendered, and the result is cut at the marks. So contents
are tokenised apart from the template's own text, and `<|end|>` typed by a user stays five characters of text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ryvion_node.engine.constants import MAX_RENDERED_CHARS, MAX_TEMPLATE_CHARS
from ryvion_node.engine.wire import WireTurn

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
"""A role is written by the template as its own text, so it must be one of these."""

_WING: Final = "\u2003"
"""White space put on both sides of a mark: gone after rendering, the template trims that side."""


class TemplateRefused(Exception):
    """The template cannot render these turns, or not in a way that keeps contents apart."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the prompt; contents are never parsed for control tokens."""

    text: str
    is_content: bool


class ChatTemplate:
    """A model's own template in a sandbox."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Raises TemplateRefused if it is no valid template."""
        if len(source) > MAX_TEMPLATE_CHARS:
            raise TemplateRefused(f"the chat template has {len(source)} characters, limit {MAX_TEMPLATE_CHARS}")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as exc:
            raise TemplateRefused(f"the chat template is not valid: {exc.message}") from exc
        self._names = {"bos_token": bos, "eos_token": eos}

    def segments(self, turns: Sequence[WireTurn]) -> tuple[Segment, ...]:
        """The prompt for these turns, in order. Raises TemplateRefused."""
        prefix = ""
        if turns and turns[-1][0] == "assistant":
            prefix, turns = turns[-1][1], turns[:-1]
        marks = [_Mark(role, content, name) for role, content, name, _calls, _answers in turns]
        segments = _cut(self._render([mark.message() for mark in marks]), marks)
        if prefix:
            segments.append(Segment(prefix, is_content=True))
        return tuple(segment for segment in segments if segment.text)

    def _render(self, messages: list[dict[str, str]]) -> str:
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(messages=messages, add_generation_prompt=True, **self._names):
                parts.append(part)
                size += len(part)
                if size > MAX_RENDERED_CHARS:
                    raise TemplateRefused("the chat template renders too much text")
        except TemplateRefused:
            raise
        except jinja2.TemplateError as exc:
            raise TemplateRefused(f"the chat template refuses these messages: {exc.message}") from exc
        except Exception as exc:  # a template is a program: it may raise anything
            raise TemplateRefused(f"the chat template fails on these messages: {type(exc).__name__}") from exc
        return "".join(parts)


class _Mark:
    """One turn in disguise."""

    def __init__(self, role: str, content: str, name: str) -> None:
        if role not in ROLES:
            raise TemplateRefused("unknown role")
        self.role, self.content, self.name = role, content, name
        # Nothing but white space needs no disguise, and templates ask whether there is any content.
        self.content_mark = _fresh() if content.strip() else ""
        self.name_mark = _fresh() if name else ""

    def message(self) -> dict[str, str]:
        content = f"{_WING}{self.content_mark}{_WING}" if self.content_mark else self.content
        return {"role": self.role, "content": content} | ({"name": self.name_mark} if self.name_mark else {})


def _cut(rendered: str, marks: Sequence[_Mark]) -> list[Segment]:
    """Cut at the marks and put the contents in their places."""
    contents = {mark.content_mark: mark for mark in marks if mark.content_mark}
    names = {mark.name_mark: mark for mark in marks if mark.name_mark}
    parts = re.split("(" + "|".join(map(re.escape, (*contents, *names))) + ")", rendered) if contents else [rendered]
    for found, mark in contents.items():
        if (times := parts.count(found)) != 1:
            raise TemplateRefused(
                f"the chat template {'repeats' if times else 'drops or alters'} the content of a {mark.role} message"
            )
    segments = []
    # Even parts are the template's own text, odd ones marks.
    for index in range(1, len(parts), 2):
        if parts[index] in names:
            content = names[parts[index]].name
        else:
            content = contents[parts[index]].content
            if parts[index - 1].endswith(_WING):
                parts[index - 1] = parts[index - 1][:-1]
            else:
                content = content.lstrip()
            if parts[index + 1].startswith(_WING):
                parts[index + 1] = parts[index + 1][1:]
            else:
                content = content.rstrip()
        segments += [Segment(parts[index - 1], is_content=False), Segment(content, is_content=True)]
    return [*segments, Segment(parts[-1], is_content=False)]


def _fresh() -> str:
    # The signs at its ends are altered by escaping filters, the letters by case filters: then it is not found again.
    return f"<\"&'{secrets.token_hex(12)}Xx'&\">"


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    # UTC, so that both ends of a job render the same prompt.
    return datetime.now(UTC).strftime(layout)
