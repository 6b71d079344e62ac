"""Vectors of knowledge bases: by a model of this node's own, or bought; who pays, who may see them, what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ryvion_node.engine.fake import FakeEngine, fake_model, fake_vector
from ryvion_node.engine.interface import Embeddings, EngineError
from ryvion_node.executor.vectors import LocalEmbedder
from ryvion_node.keys import OWNER, ApiKey, KeyLimits
from ryvion_node.knowledge.errors import KnowledgeUnavailable
from ryvion_node.knowledge.interface import EmbeddingModelAway, EmbeddingRefused, EmbeddingUnavailable, Origin
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.market.vectors import FirstAvailable, MarketEmbedder
from ryvion_node.preferences import Preferences
from ryvion_protocol.messages import ChatMessage
from tests.node.market.marketplace import Marketplace, RunningSeller, SellerPlan, clock_ms, marketplace, order

pytestmark = pytest.mark.virtual_time

MODEL = fake_model("vectors", kind="embedding", dimensions=16, context_tokens=8, features=("counted",))
OTHER = fake_model("finer", kind="embedding", dimensions=32, features=("counted",))
CHAT = fake_model("tiny")
TEXTS = ("a cat sleeps", "bonds fell")
KEYS = (b"c" * 32, b"b" * 32)
BASE = Origin("kb_1", "k1", (), KEYS)
QUERY = Origin("kb_1", "k1", ())
KEY = ApiKey("k1", "k", "buyer", (), 0, "")


@dataclass(slots=True)
class Record:
    """What left, and how far the sellers were when it was written down."""

    market: Marketplace
    disclosed: list[Disclosure] = field(default_factory=list)
    embedded: list[int] = field(default_factory=list)
    problem: str = ""
    deleted: int = 0
    """Passages that are not there any more."""

    async def record_disclosure(self, disclosure: Disclosure) -> None:
        if self.problem:
            raise KnowledgeUnavailable(self.problem)
        self.embedded.append(sum(len(seller.engine.embedded) for seller in self.market.sellers))
        self.disclosed.append(disclosure)

    async def embedded_chunks(self, knowledge_base: str, texts_sha256: Sequence[bytes]) -> tuple[DisclosedChunk, ...]:
        there = texts_sha256[self.deleted :]
        return tuple(DisclosedChunk(f"chk_{key[:12].hex()}", key.hex()) for key in there)


def seller(seed: int = 1, **changes: Any) -> SellerPlan:
    return SellerPlan(**({"seed": seed, "model": MODEL} | changes))


def embedder(market: Marketplace, key: ApiKey | None = KEY, model: str | None = None) -> tuple[MarketEmbedder, Record]:
    record = Record(market)
    return MarketEmbedder(market.buyer, {"k1": key, "control": OWNER}.get, record, clock_ms, model), record


def nobody_saw(sellers: list[RunningSeller]) -> bool:
    return not any(one.engine.embedded for one in sellers)


async def test_they_are_bought_recorded_first_and_charged_to_the_key() -> None:
    async with marketplace(seller(jurisdiction="SE")) as market:
        buy, record = embedder(market)
        made = await buy.embed(TEXTS, BASE, None)
        assert (made.model, made.dimensions) == (MODEL.digest, 16)
        assert made.values == b"".join(fake_vector(text, 16) for text in TEXTS)
        (disclosed,) = record.disclosed
        assert record.embedded == [0]
        assert (disclosed.purpose, disclosed.jurisdiction) == ("embedding", "SE")
        assert disclosed.node_key == market.sellers[0].identity.public_key
        assert [chunk.sha256 for chunk in disclosed.chunks] == [key.hex() for key in KEYS]
        (job,) = await market.ledger.by_completion_id(disclosed.completion_id)
        assert disclosed.completion_id.startswith("embd-")
        assert (job.job_id, job.key_id, job.state) == (disclosed.job_id, "k1", "accepted")
        assert job.cost_microcredits == (await market.ledger.spending("k1")).total > 0


async def test_a_query_is_recorded_without_passages() -> None:
    async with marketplace(seller()) as market:
        buy, record = embedder(market)
        await buy.embed(["when?"], replace(QUERY, key_id="control"), MODEL.digest)
        (disclosed,) = record.disclosed
        assert (disclosed.purpose, disclosed.chunks) == ("query", ())


@pytest.mark.parametrize(
    ("origin", "key", "why"),
    [
        (replace(BASE, jurisdictions=("JP",)), KEY, "no node in JP offers an embedding model"),
        (BASE, replace(KEY, jurisdictions=("JP",)), "no node in JP offers"),
        (replace(BASE, jurisdictions=("JP",)), replace(KEY, jurisdictions=("CA",)), "the key k1 that pays"),
        (BASE, None, "the API key k1 that pays for them was revoked"),
        (BASE, replace(KEY, limits=KeyLimits(budget_total=0)), "budget in total leaves too little"),
        (BASE, replace(KEY, preferences=Preferences(max_price=0)), "price"),
        (BASE, replace(KEY, preferences=Preferences(digests=frozenset((OTHER.digest,)))), "preferences"),
        (BASE, replace(KEY, knowledge_assurance="never"), "sends passages to no node"),
        (replace(BASE, preferences=Preferences(allow=frozenset())), KEY, "no node offers"),
    ],
)
async def test_what_stands_in_the_way_is_said_and_nothing_leaves(origin: Origin, key: ApiKey | None, why: str) -> None:
    async with marketplace(seller(price_in=1_000_000)) as market:
        buy, record = embedder(market, key)
        with pytest.raises(EmbeddingUnavailable, match=why):
            await buy.embed(TEXTS, origin, None)
        assert nobody_saw(market.sellers)
        assert record.disclosed == []


async def test_passages_go_only_where_bills_are_recounted_when_the_key_says_so() -> None:
    async with marketplace(seller(), counts=False) as market:
        buy, _ = embedder(market, replace(KEY, knowledge_assurance="count-checked"))
        with pytest.raises(EmbeddingUnavailable, match="count-checked"):
            await buy.embed(TEXTS, BASE, None)
        assert nobody_saw(market.sellers)
        await buy.embed(["when?"], QUERY, None)


async def test_the_model_of_the_other_vectors_is_asked_for_whatever_else_is_on_offer() -> None:
    plans = (seller(1), seller(2, model=OTHER), seller(3, model=OTHER), seller(4, model=CHAT))
    async with marketplace(*plans) as market:
        buy, _ = embedder(market)
        assert (await buy.embed(TEXTS, BASE, None)).model == OTHER.digest
        assert (await buy.embed(TEXTS, BASE, MODEL.digest)).model == MODEL.digest
        with pytest.raises(EmbeddingUnavailable, match="that made the other vectors"):
            await buy.embed(TEXTS, BASE, b"?" * 32)
        configured, _ = embedder(market, model="vectors")
        assert (await configured.embed(TEXTS, BASE, None)).model == MODEL.digest
        assert (await configured.embed(TEXTS, BASE, OTHER.digest)).model == OTHER.digest
        missing, _ = embedder(market, model="gone")
        with pytest.raises(EmbeddingUnavailable, match="no node offers the embedding model gone"):
            await missing.embed(TEXTS, BASE, None)


async def test_a_model_whose_file_is_not_known_makes_no_vectors() -> None:
    async with marketplace(seller(model=replace(MODEL, digest=bytes(32)))) as market:
        buy, _ = embedder(market)
        with pytest.raises(EmbeddingUnavailable, match="no node offers"):
            await buy.embed(TEXTS, BASE, None)


async def test_another_file_under_a_known_name_does_not_count() -> None:
    impostor = replace(MODEL, digest=b"i" * 32)
    async with marketplace(seller(1, model=impostor), seller(2, model=impostor), seller(3)) as market:
        record = Record(market)
        known = {"vectors": MODEL.digest}
        buy = MarketEmbedder(market.buyer, {"k1": KEY}.get, record, clock_ms, None, known)
        assert (await buy.embed(TEXTS, BASE, None)).model == MODEL.digest


async def test_passages_that_were_deleted_meanwhile_do_not_leave() -> None:
    async with marketplace(seller()) as market:
        buy, record = embedder(market)
        record.deleted = 1
        with pytest.raises(EmbeddingUnavailable, match="deleted meanwhile"):
            await buy.embed(TEXTS, BASE, None)
        assert nobody_saw(market.sellers)


async def test_without_any_embedder_the_mend_is_named() -> None:
    with pytest.raises(EmbeddingUnavailable, match="buy_vectors is off"):
        await FirstAvailable().embed(TEXTS, BASE, None)
    with pytest.raises(EmbeddingModelAway):
        await FirstAvailable(LocalEmbedder(FakeEngine([MODEL]), None)).embed(TEXTS, BASE, OTHER.digest)


async def test_a_node_that_breaks_is_on_record_beside_the_one_that_took_over() -> None:
    async with marketplace(seller(1), seller(2, price_in=5_000_000)) as market:
        buy, record = embedder(market)

        async def dying(model: str, texts: Sequence[str]) -> Embeddings:
            raise EngineError("worker_crashed", "it died")

        market.sellers[0].engine.embed = dying  # type: ignore[method-assign]
        await buy.embed(TEXTS, BASE, None)
        saw = [disclosed.node_key for disclosed in record.disclosed]
        assert saw == [one.identity.public_key for one in market.sellers]
        assert len({disclosed.job_id for disclosed in record.disclosed}) == 2
        assert len({disclosed.completion_id for disclosed in record.disclosed}) == 1


async def test_nothing_is_sent_that_could_not_be_recorded() -> None:
    async with marketplace(seller()) as market:
        buy, record = embedder(market)
        record.problem = "the disk is full"
        with pytest.raises(EmbeddingUnavailable, match="cannot record what leaves it: the disk is full"):
            await buy.embed(TEXTS, BASE, None)
        assert nobody_saw(market.sellers)
        assert await market.ledger.unfinished_jobs("bought") == ()
        record.problem = ""
        await buy.embed(TEXTS, BASE, None)


async def test_a_text_that_is_too_long_is_refused_and_not_called_unavailable() -> None:
    async with marketplace(seller()) as market:
        buy, _ = embedder(market)
        with pytest.raises(EmbeddingRefused):
            await buy.embed(["word " * 20], BASE, None)
        local = LocalEmbedder(FakeEngine([MODEL]), None)
        with pytest.raises(EmbeddingRefused):
            await local.embed(["word " * 20], BASE, None)


async def test_a_model_of_ones_own_comes_first_and_nothing_leaves() -> None:
    async with marketplace(seller(model=OTHER)) as market:
        bought, record = embedder(market, replace(KEY, knowledge_assurance="never"))
        engine = FakeEngine([CHAT, MODEL])
        both = FirstAvailable(LocalEmbedder(engine, None), bought)
        texts = tuple(f"text {number}" for number in range(100))
        made = await both.embed(texts, BASE, None)
        assert made.values == b"".join(fake_vector(text, 16) for text in texts)
        assert (made.model, made.dimensions) == (MODEL.digest, 16)
        assert max(map(len, engine.embedded)) <= 64
        assert record.disclosed == []
        assert (await both.embed(["when?"], QUERY, OTHER.digest)).model == OTHER.digest
        engine.withdraw("vectors")
        with pytest.raises(EmbeddingUnavailable, match="sends passages to no node"):
            await both.embed(texts, BASE, MODEL.digest)
        named = FirstAvailable(LocalEmbedder(FakeEngine([MODEL]), "finer"), embedder(market, model="finer")[0])
        assert (await named.embed(texts, BASE, None)).model == OTHER.digest


async def test_a_prompt_fits_where_an_answer_has_room_beside_it() -> None:
    model = fake_model("tiny", context_tokens=100, features=("counted",))
    async with marketplace(SellerPlan(1, model=model)) as market:

        async def fits(words: int, most: int | None) -> bool:
            message = ChatMessage("user", "word " * words, "")
            return await market.buyer.fits(order(messages=(message,), max_completion_tokens=most))

        assert await fits(70, None)
        assert not await fits(80, None)
        assert await fits(80, 10)
        assert await fits(45, 1000)
        assert not await fits(60, 1000)
        assert not await market.buyer.fits(order(model="nobody's"))


async def test_without_the_tokenizer_two_bytes_count_as_a_token() -> None:
    model = fake_model("tiny", context_tokens=100, features=("counted",))
    async with marketplace(SellerPlan(1, model=model), counts=False) as market:

        async def fits(letters: int) -> bool:
            message = ChatMessage("user", "x" * letters, "")
            return await market.buyer.fits(order(messages=(message,), max_completion_tokens=10))

        assert await fits(140)
        assert not await fits(160)
