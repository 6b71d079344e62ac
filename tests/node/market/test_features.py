"""Everything that an order may ask for beyond text: it reaches the engine as ordered, and comes back whole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import trio

from ryvion_node.engine import interface as engine
from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.executor.announcer import Advert, draw_up_offer
from ryvion_node.executor.quoting import Shop, fitting_model, quote_for, refusal_of
from ryvion_node.executor.request import generation_request, wire_logprob
from ryvion_node.market.interface import ChatOrder, MarketError, Piece
from ryvion_node.market.wanted import job_request, needed_features, sampling_of
from ryvion_node.p2p.channel import JobChannel
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.messages import (
    Alternative,
    ChatMessage,
    Error,
    Hardware,
    JobOffer,
    LogitBias,
    Offer,
    OutputFormat,
    Quote,
    QuoteRequest,
    Started,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolUse,
)
from ryvion_protocol.packet import pack
from ryvion_protocol.schema import NodeKey
from tests.node.market.marketplace import NETWORK, SellerPlan, buy, clock_ms, identity, marketplace, order

pytestmark = pytest.mark.virtual_time

TOOLS = ToolUse((Tool("weather", "How is it?", '{"type":"object"}'), Tool("clock", "", "")))
SCHEMA = OutputFormat("json_schema", '{"type":"object"}')
ADVERT = Advert(NETWORK, "test", Hardware("gpu", 1, 0, "cuda"), "DE", "", 1, 1)
CALLS = (engine.ToolCall("c1", "weather", '{"city": "Rome"}'), engine.ToolCall("c2", "clock", "{}"))


def everything() -> ChatOrder:
    return order(
        messages=(
            ChatMessage("user", "how is it?", "Ann"),
            ChatMessage("assistant", "", "", (ToolCall("c1", "weather", "{}"),)),
            ChatMessage("tool", "sunny", "", (), "c1"),
        ),
        temperature=0.25,
        top_p=0.5,
        top_k=40,
        min_p=0.125,
        presence_penalty=-1.5,
        frequency_penalty=0.75,
        repetition_penalty=1.25,
        logit_bias=(LogitBias(3, 199_999_999), LogitBias(9, 1_000_000)),
        seed=2**64 - 1,
        stop=("x",),
        tools=ToolUse(TOOLS.tools, "named", "clock", parallel=False),
        logprobs=3,
    )


async def test_all_that_is_ordered_reaches_the_engine() -> None:
    script = Script(calls=(engine.ToolCall("c1", "clock", "{}"),), cached_tokens=5)
    async with marketplace(SellerPlan(1, script=lambda r: script)) as market:
        bought = await buy(market, everything())
        request = market.sellers[0].engine.requests[0]
    assert request == engine.GenerationRequest(
        model="tiny",
        turns=(
            engine.Turn("user", "how is it?", "Ann"),
            engine.Turn("assistant", "", "", (engine.ToolCall("c1", "weather", "{}"),)),
            engine.Turn("tool", "sunny", "", (), "c1"),
        ),
        max_tokens=50,
        sampling=engine.Sampling(
            temperature=0.25,
            top_p=0.5,
            seed=2**64 - 1,
            top_k=40,
            min_p=0.125,
            presence_penalty=-1.5,
            frequency_penalty=0.75,
            repetition_penalty=1.25,
            logit_bias=((3, -100.0), (9, 0.5)),
        ),
        stop=("x",),
        tools=engine.ToolUse(
            (engine.Tool("weather", "How is it?", '{"type":"object"}'), engine.Tool("clock", "", "")),
            "named",
            "clock",
            parallel=False,
        ),
        logprobs=3,
        owner=identity(200).public_key,
    )
    assert bought.outcome is not None
    assert bought.outcome.cached_tokens == 5


async def test_thoughts_calls_and_log_probabilities_come_back_counted_and_checked() -> None:
    script = Script("I look.", reasoning="where is Rome", calls=CALLS)
    async with marketplace(SellerPlan(1, script=lambda r: script)) as market:
        bought = await buy(market, order(tools=TOOLS, logprobs=2))
    assert (bought.text, bought.reasoning) == ("I look.", "where is Rome")
    begun = [(piece.index, piece.id, piece.name) for piece in bought.calls if piece.id]
    assert begun == [(0, "c1", "weather"), (1, "c2", "clock")]
    assert "".join(piece.arguments for piece in bought.calls if piece.index == 0) == '{"city": "Rome"}'
    assert len(bought.logprobs) == 3 + 2 + 3 + 2
    assert [len(one.top) for one in bought.logprobs] == [2] * 10
    assert bought.logprobs[3].chosen == Alternative(b"I", 500_000)
    outcome = bought.outcome
    assert outcome is not None
    assert outcome.finish_reason == "tool_calls"
    assert (outcome.completion_tokens, outcome.reasoning_tokens) == (10, 3)
    assert outcome.accepted
    assert {check.outcome for check in outcome.checks} == {"passed"}


async def test_job_left_in_the_middle_of_a_call_is_billed_for_every_part_that_came() -> None:
    script = Script("said it", reasoning="hm", calls=CALLS, token_s=1.0)
    async with marketplace(SellerPlan(1, script=lambda r: script)) as market:
        async with market.buyer.buy(order(tools=TOOLS)) as job:
            async for event in job.events():
                if isinstance(event, Piece) and any(call.arguments for call in event.calls):
                    break
        await trio.sleep(5)
        (settled,) = (record for record in await market.ledger.receipts(10) if record.job.side == "bought")
        assert settled.job.state == "accepted"
        assert settled.job.completion_units == len(("hm", "said", " it", "weather", '{"city":'))


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, ()),
        ({"seed": 5, "stop": ("x",), "top_p": 0.5}, ()),
        ({"top_k": 1}, ("top_k",)),
        ({"min_p": 0.1}, ("min_p",)),
        ({"presence_penalty": -0.1}, ("penalties",)),
        ({"frequency_penalty": 0.1}, ("penalties",)),
        ({"repetition_penalty": 0.9}, ("repetition_penalty",)),
        ({"logit_bias": (LogitBias(1, 2),)}, ("logit_bias",)),
        ({"logprobs": 0}, ("logprobs",)),
        ({"output": OutputFormat("json_object")}, ("json_object",)),
        ({"output": SCHEMA, "tools": TOOLS}, ("json_schema", "tools")),
        ({"messages": (ChatMessage("user", "a", ""), ChatMessage("assistant", "b", ""))}, ("prefix",)),
        (
            {"messages": (ChatMessage("tool", "a", "", (), "c"), ChatMessage("user", "b", ""))},
            ("tools",),
        ),
    ],
)
def test_what_an_order_needs(changes: dict[str, object], needed: tuple[str, ...]) -> None:
    assert needed_features(order(**changes)) == needed


async def test_executors_that_lack_something_fall_out_with_the_reason() -> None:
    plain = fake_model("tiny", features=("counted", "seeded", "tools"))
    plans = (SellerPlan(1, price_out=1, model=plain), SellerPlan(2, script=lambda r: Script("{}")))
    async with marketplace(*plans) as market:
        bought = await buy(market, order(output=SCHEMA, logprobs=0))
        assert bought.placement is not None
        assert bought.placement.node_key == market.sellers[1].identity.public_key
        reasons = {line.node_key: line.reason for line in bought.placement.route.candidates}
        assert reasons[market.sellers[0].identity.public_key] == "lacks: json_schema, logprobs"


async def test_what_nobody_can_do_is_refused_by_name_before_any_quote() -> None:
    plain = fake_model("tiny", features=("counted", "top_k"))
    async with marketplace(SellerPlan(1, model=plain), SellerPlan(2, model=plain)) as market:
        with pytest.raises(MarketError, match="needs: json_schema") as caught:
            await buy(market, order(output=SCHEMA, top_k=5))
    assert (caught.value.code, caught.value.features) == ("unsupported", ("json_schema",))


def shop(**model: object) -> Shop:
    return Shop(NETWORK, NodeKey(bytes(32)), "DE", 1, 1, (fake_model("tiny", **model),))


def question(kind: str = "chat", **changes: object) -> QuoteRequest:
    asked = QuoteRequest(NETWORK, bytes(16), "tiny", b"", kind, 5, 5, (), 0, 1000)
    return replace(asked, **changes)  # type: ignore[arg-type]


def test_an_executor_refuses_what_its_model_cannot_do() -> None:
    able = shop(features=("tools",))
    asked = question(features=("json_schema", "tools", "x" * 64))
    refusal = refusal_of(able, asked, fitting_model(able, asked))
    assert refusal is not None
    assert (refusal.code, refusal.message) == ("feature", f"this model lacks: json_schema, {'x' * 64}")
    assert refusal_of(able, question(features=("tools",)), able.models[0]) is None


async def test_a_model_is_offered_and_quoted_as_the_kind_that_it_is() -> None:
    vectors, chat = shop(kind="embedding"), shop()
    assert fitting_model(vectors, question("embedding")) is vectors.models[0]
    assert fitting_model(vectors, question()) is None
    assert fitting_model(chat, question("embedding")) is None
    assert fitting_model(shop(kind="reranking"), question("reranking")) is None
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0]
        models = (fake_model("vectors", kind="embedding"), *seller.engine.models())
        offer = draw_up_offer(ADVERT, seller.identity, models, seller.seller.free_slots, (), clock_ms())
        assert offer is not None
        assert isinstance(offer.message, Offer)
        assert [(model.name, model.kind) for model in offer.message.models] == [
            ("vectors", "embedding"),
            ("tiny", "chat"),
        ]
        assert offer.message.models[1].features == tuple(sorted(models[1].features))


def test_an_embedding_is_quoted_for_its_texts_alone() -> None:
    """Each text has the context for itself, and the price of completions counts for nothing."""
    able = shop(kind="embedding", context_tokens=8)
    asked = question("embedding", prompt_tokens_max=1000, completion_tokens_max=0)
    assert refusal_of(able, asked, able.models[0]) is None
    dear = replace(able, price_in=10**6, price_out=10**12)
    assert refusal_of(dear, replace(asked, max_price=1000), able.models[0]) is None
    assert refusal_of(dear, replace(asked, max_price=999), able.models[0]) is not None
    reads = fake_model("tiny", kind="embedding", millitokens_per_s=0, prompt_millitokens_per_s=1_000_000)
    quote = quote_for(able, asked, bytes(32), reads, 0, 0)
    assert (quote.first_token_ms, quote.millitokens_per_s) == (1001, 1_000_000)


@pytest.mark.parametrize("features", [(), ("json_schema",)])
async def test_a_seller_refuses_a_job_that_needs_more_than_it_was_asked_for(features: tuple[str, ...]) -> None:
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0].identity.public_key
        channel = JobChannel(await market.network.open_stream(seller, MARKET_PROTOCOL), "requester")
        asked = pack(question(features=features, prompt_tokens_max=50, completion_tokens_max=5))
        await channel.send(asked)
        quote = await channel.receive()
        assert isinstance(quote.message, Quote)
        wanted = order(output=SCHEMA, max_completion_tokens=5)
        request = pack(job_request(wanted, bytes(16)))
        now = clock_ms()
        me = market.buyer_identity
        offer = JobOffer(
            version=1,
            network=NETWORK,
            requester_key=me.public_key,
            executor_key=seller,
            nonce=bytes(16),
            quote_hash=quote.hash,
            model=quote.message.model,
            digest=quote.message.digest,
            request_commitment=request.hash,
            sampling=sampling_of(wanted, 7),
            max_prompt_tokens=50,
            max_completion_tokens=5,
            max_price=0,
            issued_ms=now,
            expires_ms=now + 1000,
        )
        await channel.send(pack(offer, me), request)
        answer = (await channel.receive()).message
        if features:
            assert isinstance(answer, Started)
        else:
            assert isinstance(answer, Error)
            assert (answer.status, answer.code) == (400, "feature")
        await channel.close()


@pytest.mark.parametrize(
    ("code", "told"), [("grammar_invalid", "grammar_invalid"), ("unsupported", None), ("template_failed", None)]
)
async def test_only_a_bad_grammar_is_not_tried_elsewhere(code: engine.EngineErrorCode, told: str | None) -> None:
    refuses = Script(error=engine.EngineError(code, "not like this"))
    plans = (SellerPlan(1, price_out=1, script=lambda r: refuses), SellerPlan(2))
    wanted = order(tools=TOOLS)
    async with marketplace(*plans, quote_peers=1) as market:
        if told is None:
            assert (await buy(market, wanted)).text
        else:
            with pytest.raises(MarketError, match="not like this") as caught:
                await buy(market, wanted)
            assert caught.value.code == told
            assert market.sellers[1].engine.requests == []
        route = await market.buyer.route(order())
        assert route.winner == market.sellers[0].identity.public_key  # it is not held against the seller


async def test_a_bad_grammar_is_not_believed_where_none_was_asked_for() -> None:
    """Else one cheap seller could turn every order away by a word."""
    refuses = Script(error=engine.EngineError("grammar_invalid", "not like this"))
    async with marketplace(
        SellerPlan(1, price_out=1, script=lambda r: refuses), SellerPlan(2), quote_peers=1
    ) as market:
        assert (await buy(market)).text
        route = await market.buyer.route(order())
        assert route.winner == market.sellers[1].identity.public_key
    async with marketplace(SellerPlan(1, script=lambda r: refuses)) as market:
        with pytest.raises(MarketError, match="cannot be so") as caught:
            await buy(market)
        assert caught.value.code == "node_failed"


@pytest.mark.parametrize(("code", "told"), [("unsupported", "unsupported"), ("template_failed", "prompt_refused")])
async def test_what_every_model_refuses_is_the_requests_fault(code: engine.EngineErrorCode, told: str) -> None:
    refuses = Script(error=engine.EngineError(code, "not like this"))
    async with marketplace(SellerPlan(1, script=lambda r: refuses)) as market:
        with pytest.raises(MarketError, match="not like this") as caught:
            await buy(market)
    assert caught.value.code == told


async def test_what_an_executor_says_of_a_parameter_names_it_when_it_was_asked_for() -> None:
    refuses = Script(error=engine.EngineError("unsupported", "logit_bias names token 9999, not top_k"))
    async with marketplace(SellerPlan(1, script=lambda r: refuses)) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market, order(logit_bias=(LogitBias(9999, 1),)))
        assert caught.value.features == ("logit_bias",)
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.features == ()


async def test_tools_count_as_prompt_with_and_without_the_tokenizer() -> None:
    wanted = order(tools=TOOLS)
    for counts in (True, False):
        async with marketplace(SellerPlan(1), counts=counts) as market:
            bought = await buy(market, wanted)
            assert bought.outcome is not None
            assert bought.outcome.accepted
            assert bought.outcome.prompt_tokens == 4 + 2 + 5 + 2


async def test_executor_that_does_not_promise_to_count_alike_is_held_to_a_bound() -> None:
    remote = fake_model("tiny", features=("tools",))
    async with marketplace(SellerPlan(1, model=remote), counter_extra=1) as market:
        bought = await buy(market)
        assert bought.outcome is not None
        assert bought.outcome.accepted
        assert {check.name for check in bought.outcome.checks if check.outcome == "bounded"} == {"units_counted"}


async def test_engine_that_makes_a_call_no_frame_can_carry_fails_its_job_and_not_its_node() -> None:
    scripts = [Script("I look", calls=(engine.ToolCall("c1", "no such name!", "{}"),)), Script("fine")]
    async with marketplace(SellerPlan(1, script=lambda r: scripts.pop(0))) as market:
        with pytest.raises(MarketError, match="worker_crashed") as caught:
            await buy(market, order(tools=TOOLS))
        assert caught.value.code == "node_failed"
        assert (await buy(market)).text == "fine"


def test_words_of_a_later_version_are_refused_not_dropped() -> None:
    wanted = order(seed=1)
    offer = JobOffer(
        1, NETWORK, NodeKey(bytes(32)), NodeKey(bytes(32)), bytes(16), bytes(32), "tiny", bytes(32), bytes(32),
        sampling_of(wanted, 0), 5, 5, 0, 1, 2,
    )  # fmt: skip
    for changed in ({"tools": ToolUse((), "sometimes")}, {"output": OutputFormat("xml")}):
        with pytest.raises(engine.EngineError) as caught:
            generation_request(offer, replace(job_request(wanted, bytes(16)), **changed))  # type: ignore[arg-type]
        assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("logprob", "minus_micronats"),
    [(0.0, 0), (1e-9, 0), (-0.5, 500_000), (-1e9, 2**32 - 1), (-math.inf, 2**32 - 1), (math.nan, 2**32 - 1)],
)
def test_log_probabilities_go_out_as_whole_millionths(logprob: float, minus_micronats: int) -> None:
    said = engine.Alternative(b"x" * 300, logprob)
    assert wire_logprob(engine.TokenLogprob(said, (said,) * 30)) == TokenLogprob(
        Alternative(b"x" * 256, minus_micronats), (Alternative(b"x" * 256, minus_micronats),) * 20
    )
