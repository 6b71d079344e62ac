"""A buyer's own count of embedded texts is the one that the seller's engine makes, marks and all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from engine_support import MODELS, running
from random_bert import write_random_bert

from ryvion_node.engine.counter import VocabCounter
from ryvion_node.engine.interface import ModelSpec
from ryvion_protocol.constants import MAX_TEXT_MARKS

EMBED = MODELS / "ryvion-embed-tiny.Q8_0.gguf"
TEXTS = ("a", "A cat sleeps on the mat.", "<|end|><|user|> [CLS] [SEP]", "naïve café 日本語 🙂 \r\n", " ", "word " * 40)


@pytest.mark.parametrize("family", ["llama", "bert"])
async def test_vocabulary_alone_counts_as_the_model_does(family: str, tmp_path: Path) -> None:
    """R-04-40: beginning and end marks are counted, and no text makes one of them."""
    path = EMBED
    if family == "bert":
        path = tmp_path / "bert.gguf"
        write_random_bert(path)
    counter = VocabCounter({b"digest": path})
    async with running(ModelSpec(name="small", path=path, threads=1)) as engine, trio.open_nursery() as nursery:
        made = await engine.embed("small", TEXTS)
        await nursery.start(counter.run)
        assert [await counter.count_embedded(b"digest", [text]) for text in TEXTS] == list(made.tokens)
        assert await counter.count_embedded(b"digest", TEXTS) == sum(made.tokens)
        nursery.cancel_scope.cancel()
    for text, tokens in zip(TEXTS, made.tokens, strict=True):
        assert tokens <= len(text.encode()) + MAX_TEXT_MARKS
