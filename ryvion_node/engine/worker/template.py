"""Renders a chat template without ever showing it the contents.

Each text that another person wrote (contents, tool descriptions, arguments) is replaced by a random mark, the template
is rendered, and the result is cut at the marks. So these texts are tokenised apart from the template's own, and
`<|end|>` typed by a user stays five characters of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ryvion_node.engine.constants import MAX_MARKED_CHARS, MAX_RENDERED_CHARS, MAX_TEMPLATE_CHARS, TEMPLATE_S
from ryvion_node.engine.wire import WireCall, WireTurn
from ryvion_node.engine.worker.deadline import NoThread, TookTooLong, within
from ryvion_node.engine.worker.marks import Marks, MarksExhausted
from ryvion_node.engine.worker.speech.tools import NO_OFFER, Offer, call_arguments, short_id

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
"""A role is written by the template as its own text, so it must be one of these."""

_PROBED: Final = "probe_tool"
_PROBED_ID: Final = "call_0123456789"


class TemplateRefused(Exception):
    """The template cannot render these turns, or not in a way that keeps contents apart."""


class TemplateEndless(TemplateRefused):
    """The template was stopped."""


class TemplateUntried(TemplateRefused):
    """The template was not even begun, which says nothing about it."""


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
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        environment.filters["tojson"] = self._to_json
        # Prompts are no HTML; a text that is called safe would have its neighbours escaped.
        environment.filters["safe"] = lambda value: value
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as exc:
            raise TemplateRefused(f"the chat template is not valid: {exc.message}") from exc
        self.source = source
        self._marks = Marks()
        self._names: dict[str, Any] = {"bos_token": bos, "eos_token": eos, "documents": None, "tools": None}
        # Some templates want the ids that one vendor's models were trained with.
        self._short_ids = "!= 9" in source
        # Others write any role as it comes, and their models were never shown this one.
        self._knows_developers = "developer" in source
        asked = (("user", "ask", "", (), ""),)
        if not self._renders(asked):
            # Some want no tools at all where others want to hear that there are none.
            del self._names["tools"]
            if not self._renders(asked):
                self._names["tools"] = None
        # As clients send it, no content beside calls is none at all, but many templates take texts only.
        self._no_content: str | None = None
        self.shows_tools = self._can_show_tools()
        """Does it put tools into the prompt, and the calls and answers of earlier turns?"""
        if not self.shows_tools:
            self._no_content = ""
            self.shows_tools = self._can_show_tools()
        self.shows_system = "rule" in self._renders((("system", "rule", "", (), ""), ("user", "ask", "", (), "")))
        """Has it a place for a system message?"""
        if not self.shows_system and not self._renders(asked):
            # It takes no question at all: its owner hears why now, rather than each buyer with every job.
            self.segments(asked)

    def segments(self, turns: Sequence[WireTurn], offer: Offer = NO_OFFER) -> tuple[Segment, ...]:
        """The prompt for these turns, in order. Raises TemplateRefused."""
        prefix = ""
        if turns and turns[-1][0] == "assistant" and not turns[-1][3]:
            prefix, turns = turns[-1][1], turns[:-1]
        marks = self._marks = Marks()
        try:
            messages = [self._message(marks, number, turn) for number, turn in enumerate(turns)]
            segments = self._cut(marks, turns, self._render(marks, messages, offer))
        except MarksExhausted as exc:
            raise TemplateRefused(str(exc)) from exc
        if prefix:
            segments.append(Segment(prefix, is_content=True))
        return tuple(segment for segment in segments if segment.text)

    def _can_show_tools(self) -> bool:
        offer = Offer.of((((_PROBED, "what it does", '{"type":"object","properties":{}}'),), "auto", "", True))
        asked: WireTurn = ("user", "ask", "", (), "")
        called: WireTurn = ("assistant", "", "", ((_PROBED_ID, _PROBED, '{"a":1}'),), "")
        answered: WireTurn = ("tool", "answer", "", (), _PROBED_ID)
        shown, told = self._renders((asked,), offer), self._renders((asked, called, answered), offer)
        return 0 < shown.count(_PROBED) < told.count(_PROBED) and "answer" in told

    def _renders(self, turns: Sequence[WireTurn], offer: Offer = NO_OFFER) -> str:
        """The contents in the prompt; empty when it refuses."""
        try:
            return "".join(part.text for part in self.segments(turns, offer) if part.is_content)
        except (TemplateEndless, TemplateUntried):
            raise
        except TemplateRefused:
            return ""

    def _message(self, marks: Marks, number: int, turn: WireTurn) -> dict[str, Any]:
        role, content, name, calls, answers = turn
        if role not in ROLES:
            raise TemplateRefused("unknown role")
        if role == "developer" and not self._knows_developers:
            role = "system"
        message: dict[str, Any] = {
            "role": role,
            "content": marks.content(content, number) or (self._no_content if calls else ""),
        }
        if name:
            message["name"] = marks.quote(name)
        if calls:
            message["tool_calls"] = [self._call(marks, call) for call in calls]
        if answers:
            message["tool_call_id"] = marks.quote(self._id(answers))
        return message

    def _call(self, marks: Marks, call: WireCall) -> dict[str, Any]:
        call_id, name, text = call
        values = call_arguments(text)
        arguments = marks.quote(text) if values is None else marks.arguments(values, text)
        return {
            "id": marks.quote(self._id(call_id)),
            "type": "function",
            "function": {"name": marks.quote(name), "arguments": arguments},
        }

    def _id(self, call_id: str) -> str:
        return short_id(call_id) if self._short_ids else call_id

    def _render(self, marks: Marks, messages: list[dict[str, Any]], offer: Offer) -> str:
        names = {**self._names, "messages": messages}
        if offer.tools:
            names["tools"] = _described(marks, offer)
        try:
            return within(TEMPLATE_S, lambda: self._generate(names))
        except (TemplateRefused, MarksExhausted):
            raise
        except NoThread as exc:
            raise TemplateUntried("no room for rendering its chat template: configure fewer or smaller slots") from exc
        except TookTooLong:
            raise TemplateEndless(f"the chat template does not come to an end within {TEMPLATE_S:g} s") from None
        except jinja2.TemplateError as exc:
            raise TemplateRefused(f"the chat template refuses these messages: {exc.message}") from exc
        except Exception as exc:  # a template is a program: it may raise anything
            raise TemplateRefused(f"the chat template fails on these messages: {type(exc).__name__}") from exc

    def _generate(self, names: dict[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        for part in self._template.generate(add_generation_prompt=True, **names):
            parts.append(part)
            size += len(part)
            if size > MAX_RENDERED_CHARS:
                raise TemplateRefused("the chat template renders too much text")
        return "".join(parts)

    def _to_json(
        self,
        value: object,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
        ensure_ascii: bool = False,
    ) -> str:
        return self._marks.dump(
            value, indent=indent, separators=separators, sort_keys=sort_keys, ensure_ascii=ensure_ascii
        )

    def _cut(self, marks: Marks, turns: Sequence[WireTurn], rendered: str) -> list[Segment]:
        """Cut at the marks and put what they stand for in their places."""
        seen = [0] * len(turns)
        segments: list[Segment] = []
        size = 0
        for text, marked, contents in marks.cut(rendered):
            for number in contents:
                seen[number] += 1
            size += len(text)
            if size > MAX_MARKED_CHARS:
                raise TemplateRefused("the chat template renders too much text")
            segments.append(Segment(text, is_content=marked))
        for times, (role, content, _name, calls, _answers) in zip(seen, turns, strict=True):
            # Beside calls many templates write no content.
            if content.strip() and times != 1 and not (calls and times == 0):
                what = "repeats" if times else "drops or alters"
                raise TemplateRefused(f"the chat template {what} the content of a {role} message")
        if any(marks.left_in(segment.text) for segment in segments if not segment.is_content):
            raise TemplateRefused("the chat template alters a name, a tool or a call")
        return segments


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses sums that could keep one machine instruction busy for hours, where no deadline reaches it."""

    intercepted_binops = frozenset(("**", "*"))

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (
            isinstance(left, int) and isinstance(right, int) and (left | right) >> 64 not in (0, -1)
        ):
            raise SecurityError("such numbers are too large")
        for times, text in ((left, right), (right, left)):
            if (
                isinstance(times, int)
                and isinstance(text, str | list | tuple)
                and times * len(text) > MAX_RENDERED_CHARS
            ):
                raise SecurityError("such texts are too long")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """Templates for training mark what the model says: {% generation %} .. {% endgeneration %}. Here it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - so jinja wants it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _described(marks: Marks, offer: Offer) -> list[dict[str, Any]]:
    """The tools as templates expect them."""
    return [
        {
            "type": "function",
            "function": {
                "name": marks.quote(tool.name),
                "description": marks.quote(tool.description),
                "parameters": marks.quote(tool.parameters),
            },
        }
        for tool in offer.tools
    ]


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    # UTC, so that both ends of a job render the same prompt.
    return datetime.now(UTC).strftime(layout)
