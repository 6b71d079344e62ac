"""Answers are taken apart in thoughts, content and calls, however they are cut, and nothing is lost."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.engine.constants import MAX_HELD_CHARS
from ryvion_node.engine.worker.speech.families import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PHI, CallStyle, Thoughts
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speech.speech import Manner, Speech
from ryvion_node.engine.worker.speech.tools import Offer

OFFER = Offer.of(((("add", "", ""), ("look", "", "{}")), "auto", "", True))
THINK = Thoughts("<think>", "</think>")
STYLES = (HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PHI)


def speech(
    style: CallStyle | None = None, *, thinking: bool = False, begun: bool = False, offer: Offer = OFFER
) -> Speech:
    return Speech(Manner(THINK, style), offer, "id{}".format, thinking=thinking, begun=begun)


def heard(made: Speech, *pieces: str) -> Parts:
    """All that came out, the pieces of each call joined."""
    parts = Parts()
    for piece in pieces:
        parts += made.add(piece)
    parts += made.finish()
    calls: dict[int, tuple[int, str, str, str]] = {}
    for index, call_id, name, arguments in parts.calls:
        known = calls.get(index, (index, "", "", ""))
        assert not (known[1] and call_id), "a call begins once"
        calls[index] = (index, known[1] or call_id, known[2] or name, known[3] + arguments)
    assert list(calls) == list(range(len(calls)))
    whole = Parts(parts.content, parts.reasoning, tuple(calls.values()))
    texts = (whole.content, whole.reasoning, *(text for call in whole.calls for text in call[2:]))
    assert made.texts() == tuple(text for text in texts if text), "what is billed is what came out"
    assert made.called == bool(calls)
    return whole


def said(content: str = "", reasoning: str = "", *calls: tuple[str, str]) -> Parts:
    return Parts(content, reasoning, tuple((at, f"id{at}", *call) for at, call in enumerate(calls)))


ONE = '{"name": "add", "arguments": {"a": [1, "}"]}}'
TWO = '{"arguments": {"q": "\\u00e9\\""}, "id": "x", "name": "look"}'
CALLS = (("add", '{"a": [1, "}"]}'), ("look", '{"q": "\\u00e9\\""}'))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (HERMES, f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>{TWO}</tool_call>"),
        (HERMES, f"<tool_call>[{ONE}, {TWO}]</tool_call>\n"),
        (HERMES, f"<tool_call>\n{ONE[:-1]}\n</tool_call>\n<tool_call>{TWO}"),
        (LLAMA, ONE.replace("arguments", "parameters") + "; " + TWO),
        (LLAMA, f"<|python_tag|>{ONE}\n{TWO}"),
        (MISTRAL, f"[TOOL_CALLS] [{ONE}, {TWO}]"),
        (MISTRAL, f"[TOOL_CALLS]{ONE}[TOOL_CALLS]{TWO}"),
        (MISTRAL_NAMED, f"[TOOL_CALLS]add[ARGS]{CALLS[0][1]}[TOOL_CALLS]look[CALL_ID]x[ARGS]{CALLS[1][1]}"),
        (MISTRAL_NAMED, f"[TOOL_CALLS] [{ONE}, {TWO}]"),
        (PHI, f"<|tool_call|>[{ONE},{TWO}]<|/tool_call|>"),
        (PHI, f"<|tool_call|>{ONE}<|/tool_call|><|tool_call|>{TWO}<|/tool_call|>"),
    ],
)
def test_calls_of_each_family(style: CallStyle, text: str) -> None:
    assert heard(speech(style), text) == said("", "", *CALLS)
    assert heard(speech(style), "<think>\nAdd.\n</think>\n\n" + text) == said("", "Add.", *CALLS)
    assert heard(speech(style, thinking=True), "\nAdd.\n</think>\n" + text) == said("", "Add.", *CALLS)
    if not style.bare:
        assert heard(speech(style), "Let me see.\n" + text + "Done.") == said("Let me see.Done.", "", *CALLS)


FRAGMENTS = st.sampled_from(
    (
        *"{}[]\",: \n\\;x",
        "<tool_call>", "</tool_call>", "<|tool_call|>", "<|/tool_call|>", "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]", "[CALL_ID]", "add",
        "<think>", "</think>", "<", "</", '{"name": "add"', ', "arguments": ', '"parameters":', ONE, TWO, '"look"', "null",
    )
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join) | st.text(max_size=30)


@settings(deadline=None)
@given(st.sampled_from((None, *STYLES)), TEXTS, st.booleans(), st.booleans(), st.lists(st.integers(0, 200), max_size=6))
def test_cuts_make_no_difference(
    style: CallStyle | None, text: str, thinking: bool, parallel: bool, cuts: list[int]
) -> None:
    offer = replace(OFFER, parallel=parallel)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    whole = heard(speech(style, thinking=thinking, offer=offer), text)
    assert heard(speech(style, thinking=thinking, offer=offer), *pieces) == whole
    assert heard(speech(style, thinking=thinking, offer=offer), *text) == whole
    if not parallel:
        assert len(whole.calls) <= 1


@settings(deadline=None)
@given(st.sampled_from(STYLES), TEXTS)
def test_nothing_is_lost(style: CallStyle, text: str) -> None:
    """What is no call comes out as it is, white space and markers aside."""
    out = heard(speech(style, begun=True), text)
    if not out.calls:
        assert out.content == text
    kept = out.content + "".join(name + arguments for _index, _id, name, arguments in out.calls)
    for char in "x\\":
        assert kept.count(char) >= out.content.count(char)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "body",
    [
        "not json",
        '{"name": "add"',
        '{"name": "unknown", "arguments": {}}',
        '{"name": "add", "arguments": 7}',
        '{"name": "add", "arguments": [}',
        '{"name": 1}',
        '{"verse": {}}',
        "{}",
        "[]",
        '{"name": "add", "arguments": "no object"}',
        '{"name": "add", "arguments": "{\\"a\\": \\"\\ud800\\"}"}',
    ],
)
def test_what_is_no_call_is_content(style: CallStyle, body: str) -> None:
    text = style.begin + body
    out = heard(speech(style), text)
    assert not out.calls
    assert out.content == text or (body == "[]" and out.content == "")


def test_arguments_stream_as_they_come() -> None:
    made = speech(HERMES)
    assert made.add('Sure.\n<tool_call>\n{"name": "add", "argum') == Parts("Sure.")
    assert made.add('ents": {"a"') == Parts(calls=((0, "id0", "add", '{"a"'),))
    assert made.add(": 1") == Parts(calls=((0, "", "", ": 1"),))
    assert made.add("}}\n") == Parts(calls=((0, "", "", "}"),))
    assert made.finish("</tool_call>") == Parts()


def test_content_streams_at_once_but_for_what_may_be_a_marker() -> None:
    made = speech(HERMES)
    assert made.add("a < b ") == Parts("a < b")
    assert made.add("<tool") == Parts()
    assert made.add("ing>") == Parts(" <tooling>")
    assert speech(None, offer=Offer()).add("<tool_call> ") == Parts("<tool_call> ")


@pytest.mark.parametrize(
    ("written", "given"),
    [("null", "{}"), ('"{\\"a\\": 1}"', '{"a": 1}'), ("{ }", "{ }")],
)
def test_arguments_in_other_clothes(written: str, given: str) -> None:
    text = f'<tool_call>{{"name": "add", "arguments": {written}}}</tool_call>'
    assert heard(speech(HERMES), text) == said("", "", ("add", given))
    assert heard(speech(HERMES), '<tool_call>{"name":"add"}</tool_call>') == said("", "", ("add", "{}"))


def test_one_call_at_a_time_ends_the_answer() -> None:
    made = speech(MISTRAL, offer=replace(OFFER, parallel=False))
    assert heard(made, f"[TOOL_CALLS][{ONE}, {TWO}] and more") == said("", "", CALLS[0])
    assert made.done


def test_an_endless_would_be_call_is_shown_in_the_end() -> None:
    text = '<tool_call>{"name": "' + "x" * MAX_HELD_CHARS
    made = speech(HERMES)
    assert made.add(text).content == text
    assert heard(speech(HERMES), *text).content == text


def test_a_thought_may_stay_open() -> None:
    assert heard(speech(None), "<think>\nHm. ") == said("", "Hm. ")
    assert heard(speech(None, thinking=True), "Hm</th") == said("", "Hm</th")
    assert heard(speech(None, thinking=True), "<think>\nHm</think>\n\nYes") == said("Yes", "Hm")
    assert heard(speech(None), "a <think>b</think>") == said("a <think>b</think>")
    assert heard(speech(None, begun=True), "<think>b</think>") == said("<think>b</think>")


def test_control_tokens_never_leak() -> None:
    signs = {7: "\ufdd0", 8: "\ufdd1"}
    manner = Manner(None, replace(PHI, begin="\ufdd0", end="\ufdd1"), signs)
    made = Speech(manner, OFFER, str)
    assert (made.marker(7), made.marker(8), made.marker(9)) == ("\ufdd0".encode(), "\ufdd1".encode(), None)
    out = heard(made, f"<|tool_call|>[]\ufdd1 \ufdd0[{ONE[:-3]}\ufdd1{ONE[-3:]}]\ufdd1\ufdd0no")
    assert out == Parts("<|tool_call|>[]no", "", ((0, "0", *CALLS[0]),))
    json.loads(out.calls[0][3])
