"""POST /v1/completions: a text is continued, in the older API's own shapes."""

from __future__ import annotations

import json

import openai
import pytest
import trio
from openai.types import Completion
from proxy_clients import async_client, sync_client
from proxy_harness import Endpoint, Reply, serving

from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy.text_completions import INSTRUCTION
from ryvion_protocol.exported import read_receipts, verify_exported
from ryvion_protocol.messages import Alternative, TokenLogprob

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]


def _logprob(token: bytes, *others: bytes) -> TokenLogprob:
    top = tuple(Alternative(other, 1_000_000 * number) for number, other in enumerate((token, *others), 1))
    return TokenLogprob(Alternative(token, 1_000_000), top)


async def _ask(endpoint: Endpoint, **extra: object) -> Reply:
    body = {"model": "echo", "prompt": "def f(", **extra}
    return await endpoint.ask("POST", "/v1/completions", body, authorization="Bearer sk-buyer")


async def test_a_prompt_is_what_the_assistant_has_begun_to_say() -> None:
    async with serving({"echo": says("x", "):")}) as endpoint, async_client(endpoint) as client:
        answer = await client.completions.create(model="echo", prompt="def f(", temperature=0, stop="\n", seed=3)
    order = endpoint.market.orders[0]
    assert [(turn.role, turn.content) for turn in order.messages] == [("user", INSTRUCTION), ("assistant", "def f(")]
    assert (order.temperature, order.stop, order.seed, order.max_completion_tokens) == (0, ("\n",), 3, 16)
    assert answer.choices[0].text == "x):"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.id == order.account.completion_id
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2
    assert answer.model_extra is not None
    assert answer.model_extra["ryvion"]["accepted"] is True
    Completion.model_validate(answer.to_dict())


async def test_streamed_and_whole_say_the_same() -> None:
    async with serving({"echo": says("x", "é", "):")}) as endpoint, async_client(endpoint) as client:
        whole = await client.completions.create(model="echo", prompt="def f(")
        stream = await client.completions.create(
            model="echo", prompt="def f(", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-2]] == [None] * 4
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    for chunk in chunks[:-2]:
        assert chunk.object == "text_completion"


async def test_the_stream_on_the_wire() -> None:
    async with serving({"echo": says("a", "\u2028")}) as endpoint:
        reply = await _ask(endpoint, stream=True)
    first, one, two, finish, done = reply.events()
    assert done == "[DONE]"
    assert [json.loads(event)["choices"][0]["text"] for event in (first, one, two, finish)] == ["", "a", "\u2028", ""]
    assert json.loads(first)["ryvion"]["jurisdiction"] == "CA"
    assert json.loads(finish)["ryvion"]["receipt"]
    assert b'"usage"' not in reply.body
    assert reply.headers["x-ryvion-job-id"] == f"{1:064x}"


async def test_sync_client_and_a_list_of_one() -> None:
    async with serving({"echo": says("a")}) as endpoint:

        def use() -> None:
            with sync_client(endpoint) as client:
                assert client.completions.create(model="echo", prompt=["hi"], max_tokens=5).choices[0].text == "a"

        await trio.to_thread.run_sync(use)
    assert endpoint.market.orders[0].messages[-1].content == "hi"
    assert endpoint.market.orders[0].max_completion_tokens == 5


async def test_log_probabilities_in_the_older_form() -> None:
    pieces = (Piece("he", logprobs=(_logprob(b"he", b"it"),)), Piece("llo", logprobs=(_logprob(b"llo"),)))
    expected = {
        "tokens": ["he", "llo"],
        "token_logprobs": [-1.0, -1.0],
        "top_logprobs": [{"he": -1.0, "it": -2.0}, {"llo": -1.0}],
        "text_offset": [0, 2],
    }
    async with serving({"echo": Script(pieces)}) as endpoint, async_client(endpoint) as client:
        whole = await client.completions.create(model="echo", prompt="x", logprobs=2)
        stream = await client.completions.create(model="echo", prompt="x", logprobs=2, stream=True)
        parts = [c.choices[0].logprobs.to_dict() async for c in stream if c.choices[0].logprobs]
    assert endpoint.market.orders[0].logprobs == 2
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.to_dict() == expected
    streamed = {name: [value for part in parts for value in part[name]] for name in expected}
    assert streamed == expected


async def test_logprobs_of_the_chosen_tokens_only() -> None:
    async with serving({"echo": Script((Piece("a", logprobs=(TokenLogprob(Alternative(b"a", 5), ()),)),))}) as endpoint:
        reply = await _ask(endpoint, logprobs=0)
    assert endpoint.market.orders[0].logprobs == 0
    assert reply.json()["choices"][0]["logprobs"]["top_logprobs"] == [{"a": -5e-06}]


async def test_the_receipt_is_for_the_text_that_the_client_keeps() -> None:
    async with serving({"echo": Script((Piece(reasoning="hm"), Piece("a"), Piece("b")))}) as endpoint:
        reply = await _ask(endpoint)
    (receipt,) = read_receipts(json.dumps(reply.json()["ryvion"]).encode())
    findings = {finding.name: finding.outcome for finding in verify_exported(receipt, reply.body).findings}
    assert (findings["signature"], findings["answer"]) == ("passed", "passed")


async def test_thoughts_stand_beside_the_text() -> None:
    script = Script((Piece(reasoning="hm"), Piece("a")), finish_reason="length")
    async with serving({"echo": script}) as endpoint:
        choice = (await _ask(endpoint)).json()["choices"][0]
        streamed = [json.loads(event)["choices"][0] for event in (await _ask(endpoint, stream=True)).events()[:-1]]
    assert choice == {
        "text": "a",
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
        "reasoning_content": "hm",
    }
    assert [(one["text"], one.get("reasoning_content")) for one in streamed] == [
        ("", None),
        ("", "hm"),
        ("a", None),
        ("", None),
    ]


async def test_several_texts_have_n_choices_each_in_their_order() -> None:
    async with (
        serving({"echo": Script(by_seed=(says("a"), says("b", "c")))}) as endpoint,
        async_client(endpoint) as client,
    ):
        whole = await client.completions.create(model="echo", prompt=["one two", "three"], n=2, seed=4, logprobs=0)
        orders = endpoint.market.orders
        stream = await client.completions.create(
            model="echo", prompt=["one two", "three"], n=2, seed=4, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = [chunk async for chunk in stream]
    asked = sorted((order.messages[-1].content, order.seed, order.max_completion_tokens) for order in orders[:4])
    assert asked == [("one two", 4, 16), ("one two", 5, 16), ("three", 4, 16), ("three", 5, 16)]
    assert [(choice.index, choice.text) for choice in whole.choices] == [(0, "a"), (1, "bc"), (2, "a"), (3, "bc")]
    said = {index: "".join(c.choices[0].text for c in chunks if c.choices[0].index == index) for index in range(4)}
    assert said == {0: "a", 1: "bc", 2: "a", 3: "bc"}
    prompts = [len(f"{INSTRUCTION} {text}".split()) for text in ("one two", "three")]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (sum(prompts), 6)
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == sum(count // 2 for count in prompts)
    assert last.usage == whole.usage
    assert whole.model_extra is not None
    assert len(set(whole.model_extra["ryvion"]["jobs"])) == 4


async def test_offsets_of_log_probabilities_are_those_of_their_own_choice() -> None:
    pieces = (Piece("he", logprobs=(_logprob(b"he"),)), Piece("llo", logprobs=(_logprob(b"llo"),)))
    async with serving({"echo": Script(pieces)}) as endpoint:
        reply = await _ask(endpoint, logprobs=1, n=2, stream=True)
    choices = [json.loads(event)["choices"][0] for event in reply.events()[:-1]]
    for index in (0, 1):
        told = [one["logprobs"]["text_offset"] for one in choices if one["index"] == index and one["logprobs"]]
        assert told == [[0], [2]]


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        ({"prompt": None}, "invalid_type", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": []}, "invalid_type", "prompt"),
        ({"prompt": 5}, "invalid_type", "prompt"),
        ({"prompt": ["a", ""]}, "invalid_value", "prompt"),
        ({"prompt": ["a", 5]}, "invalid_type", "prompt"),
        ({"prompt": ["a"] * 33}, "invalid_value", "prompt"),
        ({"prompt": ["a"] * 3, "n": 11}, "invalid_value", "prompt"),
        ({"prompt": ["a", "x" * 300_000]}, "context_length_exceeded", "prompt"),
        ({"prompt": [1, 2]}, "unsupported_parameter", "prompt"),
        ({"prompt": [[1, 2]]}, "unsupported_parameter", "prompt"),
        ({"prompt": "x" * 300_000}, "context_length_exceeded", "prompt"),
        ({"suffix": "end"}, "unsupported_parameter", "suffix"),
        ({"echo": True}, "unsupported_parameter", "echo"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"best_of": 1, "n": 2}, "unsupported_parameter", "best_of"),
        ({"logprobs": True}, "invalid_type", "logprobs"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"top_logprobs": 1}, "unsupported_parameter", "top_logprobs"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "tools"),
        ({"messages": []}, "unsupported_parameter", "messages"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"model": "nobody has it"}, "model_not_found", "model"),
        ({"jurisdiction": "XX"}, "invalid_value", "jurisdiction"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(extra: dict[str, object], code: str, param: str) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        for stream in (True, False):
            reply = await _ask(endpoint, stream=stream, **extra)
            assert (reply.error["code"], reply.error["param"]) == (code, param)
            assert "messages[" not in str(reply.error["message"])
    assert not endpoint.market.orders


@pytest.mark.parametrize("missing", ["model", "prompt"])
async def test_what_is_missing_is_named(missing: str) -> None:
    body = {"model": "echo", "prompt": "a"}
    del body[missing]
    async with serving({"echo": says("a")}) as endpoint:
        reply = await endpoint.ask("POST", "/v1/completions", body, authorization="Bearer sk-buyer")
    assert (reply.error["code"], reply.error["param"]) == ("missing_required_parameter", missing)


async def test_nulls_and_harmless_values_are_defaults() -> None:
    harmless = {"suffix": "", "echo": False, "best_of": 1, "n": 1, "user": "me", "logprobs": None, "max_tokens": None}
    async with serving({"echo": says("a")}) as endpoint:
        assert (await _ask(endpoint, **harmless)).status == 200
    assert endpoint.market.orders[0].max_completion_tokens == 16


async def test_a_model_that_nobody_can_continue_with_says_what_to_do() -> None:
    refusal = MarketError("unsupported", "no executor has prefix", features=("prefix",))
    async with serving({"echo": Script(before=(refusal,))}) as endpoint, async_client(endpoint) as client:
        with pytest.raises(openai.BadRequestError, match="/v1/chat/completions") as caught:
            await client.completions.create(model="echo", prompt="x")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "prompt")


async def test_a_failure_in_the_stream_is_raised() -> None:
    script = Script((Piece("a"), MarketError("node_failed", "the executor went away")))
    async with serving({"echo": script}) as endpoint, async_client(endpoint) as client:
        stream = await client.completions.create(model="echo", prompt="x", stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIError, match="the executor went away"):
            await _read_into(texts, stream)
        whole = await _ask(endpoint)
    assert texts == ["", "a"]
    assert (whole.status, whole.headers["x-should-retry"]) == (502, "false")


async def _read_into(texts: list[str], stream: openai.AsyncStream[Completion]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].text)


async def test_leaving_ends_the_job() -> None:
    async with serving({"echo": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        body = {"model": "echo", "prompt": "x", "stream": True}
        await client.send("POST", "/v1/completions", body, authorization="Bearer sk-buyer")
        await client.head()
        await client.event()
        await client.stream.aclose()
        with trio.fail_after(1):
            await endpoint.market.left.wait()
        assert endpoint.market.left_early
