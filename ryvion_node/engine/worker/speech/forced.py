"""Grammars that hold an answer to calls of the tools that were offered, in the words of the model's family.

Where the model thinks before it answers, the grammar lets it, and begins after the thoughts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from llguidance import regex_to_lark

from ryvion_node.engine.wire import WireOutput
from ryvion_node.engine.worker.grammar import JSON_OPTIONS, read_schema
from ryvion_node.engine.worker.speech.families import CallStyle
from ryvion_node.engine.worker.speech.speech import Manner
from ryvion_node.engine.worker.speech.tools import Offer, Tool, ToolsRefused


def answer_grammar(manner: Manner, offer: Offer, output: WireOutput, *, thinking: bool, begun: bool) -> WireOutput:
    """What the whole answer must obey, from its first token. Raises ToolsRefused or GrammarInvalid.

    A tool that must be called leaves no room for other output; one that may be called stands beside it.
    """
    kind, _text = output
    if not offer.must:
        if not kind:
            return output
        if kind == "lark":
            if offer.tools:
                raise ToolsRefused("a Lark grammar describes the whole answer, so no tools can be offered beside it")
            return output
        if not offer.tools and (manner.thoughts is None or begun):
            return output
    answers: list[str] = []
    rules: list[str] = []
    if tools := offer.must or offer.tools:
        assert manner.calls is not None
        # Beside other JSON a call must show by its marker what it is.
        rules += _calls(manner, manner.calls, tools, parallel=offer.parallel, bare=bool(offer.must))
        answers.append("calls")
    if not offer.must:
        rules.append(f"body: {_body(output)}")
        answers.append("body")
    rules.append(f"answer: {' | '.join(answers)}")
    return "lark", "\n".join((*_start(manner, thinking=thinking, begun=begun), *rules, ""))


def _start(manner: Manner, *, thinking: bool, begun: bool) -> list[str]:
    if manner.thoughts is None or (begun and not thinking):
        return ["start: answer"]
    first, last = _terminal(manner, manner.thoughts.begin), _terminal(manner, manner.thoughts.end)
    thought = "thought gap? answer"
    return [
        f"start: {thought}" if thinking else f"start: answer | {first} {thought}",
        # A control token cannot be part of an expression, but it ends one.
        f"thought: THOUGHT {last}" if last.startswith("<") else f"thought[suffix={last}]: THOUGHT",
        r"THOUGHT: /(?s:.*)/",
        r"gap: /\n\n?/",
    ]


def _calls(manner: Manner, style: CallStyle, tools: Sequence[Tool], *, parallel: bool, bare: bool) -> list[str]:
    begin, end, pad = _terminal(manner, style.begin), _terminal(manner, style.end), _literal(style.pad)
    separator = _terminal(manner, style.separator)
    if style.separator:
        rules = [f"calls: one{' one*' if parallel else ''}"]
    elif style.listed:
        rules = [f'calls: {begin} "[" one{_more(", one", parallel)} "]" {end}']
    elif style.bare:
        rules = [f"calls: {'' if bare else begin} one{_more('; one', parallel)}"]
    else:
        rules = [f"calls: marked{_more(chr(10) + ' marked', parallel)}", f"marked: {begin} {pad} one {pad} {end}"]
    rules.append("one: " + " | ".join(f"tool_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        opening = _literal(f'{{"name": "{tool.name}", "{style.arguments}": ')
        if style.separator:
            call = f"{begin} {_literal(tool.name)} {separator} arguments_{number}"
        else:
            call = f'{opening} arguments_{number} "}}"'
        schema = read_schema(json.dumps(_lean(tool.parameters)))
        if schema.get("properties") == {} and not schema.keys() - {"type", "properties"}:
            # A function without parameters is called without arguments, not with what comes to the model's mind.
            schema = {**schema, "additionalProperties": False}
        rules += [
            f"tool_{number}: {call}",
            f"arguments_{number}: %json {json.dumps({'type': 'object', **schema, 'x-guidance': JSON_OPTIONS})}",
        ]
    return rules


def _lean(value: object) -> object:
    """A schema without its words for people, which would count as grammar."""
    match value:
        case dict():
            return {
                key: item if key in ("const", "enum") else _lean(item)
                for key, item in value.items()
                if not (key in ("title", "description", "$comment") and isinstance(item, str))
            }
        case list():
            return [_lean(item) for item in value]
        case _:
            return value


def _more(separated: str, parallel: bool) -> str:
    separator, rule = separated.rsplit(" ", 1)
    return f" ({_literal(separator + ' ' if separator.strip() else separator)} {rule})*" if parallel else ""


def _body(output: WireOutput) -> str:
    kind, text = output
    match kind:
        case "regex":
            return f"/{regex_to_lark(text)}/"
        case "json_schema":
            schema = read_schema(text)
        case _:
            schema = {"type": "object"}
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def _terminal(manner: Manner, marker: str) -> str:
    token = next((token for token, sign in manner.signs.items() if sign == marker), None)
    return _literal(marker) if token is None else f"<[{token}]>"


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""
