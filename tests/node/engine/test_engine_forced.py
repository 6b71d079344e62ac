"""Calls that must be made: the grammar of a forced call lets nothing else through."""

from __future__ import annotations

import json

import pytest
from tool_templates import (
    ANYTHING,
    ASK,
    NONE,
    PLAIN,
    STYLES,
    THINKING,
    TOOLS,
    accepts,
    choose,
    heard,
    prompts_of,
)

from ryvion_node.engine.wire import WireTools, WireTurn
from ryvion_node.engine.worker.grammar import GrammarInvalid, Grammars
from ryvion_node.engine.worker.llama import Model
from ryvion_node.engine.worker.prompt import Prompts
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speech.tools import ToolsRefused

PARIS = '{"city": "Paris","unit":"c"}'
WRITTEN = {
    "hermes": '<tool_call>\n{"name": "NAME", "arguments": @}\n</tool_call>',
    "llama": '{"name": "NAME", "parameters": @}',
    "mistral": '[TOOL_CALLS][{"name": "NAME", "arguments": @}]',
    "named": "[TOOL_CALLS]NAME[ARGS]@",
    "phi": '<|tool_call|>[{"name": "NAME", "arguments": @}]<|/tool_call|>',
    "taught": '<tool_call>\n{"name": "NAME", "arguments": @}\n</tool_call>',
}
TWICE = {"hermes": "\n", "llama": "; ", "taught": "\n", "named": ""}


def written(name: str, tool: str, arguments: str) -> str:
    return WRITTEN[name].replace("NAME", tool).replace("@", arguments)


@pytest.mark.parametrize("name", STYLES)
def test_a_forced_call_can_be_nothing_else(model: Model, grammars: Grammars, name: str) -> None:
    prompts = prompts_of(model, name)

    def fits(tools: WireTools, text: str) -> bool:
        return accepts(grammars, model, prompts.prepare((ASK,), tools, ANYTHING), text)

    weather, clock = written(name, "get_weather", PARIS), written(name, "now", "{}")
    assert heard(prompts.prepare((ASK,), TOOLS, ANYTHING), weather).calls[0][2:] == ("get_weather", PARIS)
    assert fits(choose("required"), weather)
    assert fits(choose("required"), clock)
    assert fits(choose("named", "get_weather"), weather)
    assert not fits(choose("named", "get_weather"), clock)
    assert not fits(choose("required"), "It is warm.")
    assert not fits(choose("required"), written(name, "get_weather", "{}"))
    assert not fits(choose("required"), written(name, "get_weather", '{"city": 7}'))
    if name in TWICE:
        assert fits(choose("required"), weather + TWICE[name] + clock)
        assert not fits(choose("required", parallel=False), weather + TWICE[name] + clock)
    assert prompts.prepare((ASK,), TOOLS, ANYTHING).output == ANYTHING


@pytest.mark.parametrize("source", [PLAIN + "{# <think></think> #}", THINKING], ids=["may think", "must think"])
def test_thoughts_come_before_what_is_forced(model: Model, grammars: Grammars, source: str) -> None:
    prompts = Prompts(model, source)
    thought = "<think>\nHm, {1\n</think>\n\n" if source != THINKING else "Hm, {1\n</think>\n\n"
    call = written("taught", "get_weather", PARIS)
    prepared = prompts.prepare((ASK,), choose("required"), ANYTHING)
    assert accepts(grammars, model, prepared, thought + call)
    assert not accepts(grammars, model, prepared, thought + "no call")
    assert accepts(grammars, model, prepared, call) == (source != THINKING)
    out = heard(prepared, thought + call)
    assert (out.reasoning, out.content, out.calls[0][3]) == ("Hm, {1", "", PARIS)

    schema = ("json_schema", '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')
    for output, good, bad in (
        (schema, '{"a": 5}', '{"a": "5"}'),
        (("regex", "a/+"), "a//", "b/"),
        (("json_object", ""), "{}", "[]"),
    ):
        prepared = prompts.prepare((ASK,), NONE, output)
        assert accepts(grammars, model, prepared, thought + good)
        assert not accepts(grammars, model, prepared, thought + bad)
        assert heard(prepared, thought + good).content == good
    # A Lark grammar is about all of the answer.
    prepared = prompts.prepare((ASK,), NONE, ("lark", 'start: "yes"'))
    assert accepts(grammars, model, prepared, "yes")
    assert heard(prepared, "yes").content == "yes"


@pytest.mark.parametrize("name", STYLES)
def test_beside_tools_that_may_be_called_output_is_checked_too(model: Model, grammars: Grammars, name: str) -> None:
    prompts = prompts_of(model, name)
    output = ("json_schema", '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')
    prepared = prompts.prepare((ASK,), TOOLS, output)
    call = written(name, "get_weather", PARIS)
    assert accepts(grammars, model, prepared, '{"a": 5}')
    assert accepts(grammars, model, prepared, ("<|python_tag|>" if name == "llama" else "") + call)
    assert not accepts(grammars, model, prepared, "It is warm.")
    required = prompts.prepare((ASK,), choose("required"), output)
    assert not accepts(grammars, model, required, '{"a": 5}')
    with pytest.raises(ToolsRefused, match="Lark"):
        prompts.prepare((ASK,), TOOLS, ("lark", 'start: "yes"'))


def test_a_continued_answer_is_held_to_its_grammar_from_where_it_stands(model: Model, grammars: Grammars) -> None:
    prompts = Prompts(model, THINKING)
    start: WireTurn = ("assistant", "Hm</think>\n\nSo:", "", (), "")
    prepared = prompts.prepare((ASK, start), NONE, ("json_object", ""))
    assert accepts(grammars, model, prepared, "{}")
    assert heard(prepared, "{}") == Parts("{}")
    musing: WireTurn = ("assistant", "Hm", "", (), "")
    prepared = prompts.prepare((ASK, musing), NONE, ANYTHING)
    assert heard(prepared, " yes</think>No.") == Parts("No.", "yes")


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "nonsense"}',
        '{"type": "object", "properties": 3}',
        '{"$ref": "http://example.org/x"}',
        '{"$ref": "#/nowhere"}',
    ],
)
def test_parameters_that_are_no_schema_are_refused_when_they_matter(
    model: Model, grammars: Grammars, schema: str
) -> None:
    tools: WireTools = ((("x", "", schema),), "required", "", True)
    with pytest.raises(GrammarInvalid):
        grammars.compile(prompts_of(model, "hermes").prepare((ASK,), tools, ANYTHING).output)


@pytest.mark.parametrize("schema", ["", "{}", '{"type": "object", "properties": {}}'])
def test_a_function_without_parameters_is_called_with_none(model: Model, grammars: Grammars, schema: str) -> None:
    tools: WireTools = ((("x", "", schema),), "required", "", True)
    required = prompts_of(model, "hermes").prepare((ASK,), tools, ANYTHING)
    assert accepts(grammars, model, required, written("hermes", "x", "{}"))
    assert not accepts(grammars, model, required, written("hermes", "x", '{"a": 1}'))


def test_words_for_people_do_not_count_as_grammar(model: Model, grammars: Grammars) -> None:
    schema = {"type": "object", "description": "(" * 500, "properties": {"description": {"const": {"title": "x"}}}}
    tools: WireTools = ((("x", "", json.dumps(schema)),), "required", "", True)
    prepared = prompts_of(model, "hermes").prepare((ASK,), tools, ANYTHING)
    assert accepts(grammars, model, prepared, written("hermes", "x", '{"description": {"title": "x"}}'))
    assert not accepts(grammars, model, prepared, written("hermes", "x", '{"description": {}}'))
