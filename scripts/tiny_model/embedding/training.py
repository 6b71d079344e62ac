"""Contrastive training: a text's partner must be nearer than every other text of the batch. Step-based and seeded."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from tiny_model.embedding.encoder import Encoder
from tiny_model.embedding.pairs import CLUSTER_PAIRS, Pair, Pairs
from tiny_model.network import Shape
from tiny_model.tokenizer import encoder as text_encoder
from tiny_model.train import make_optimizers, rate_share, set_rate
from tiny_model.vocabulary import BOS, Vocabulary

CLUSTERS: Final = 32
TEMPERATURE: Final = 0.05
MOST_TOKENS: Final = 128
"""Longer texts are cut while training."""
REPORT_EVERY_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Run:
    """One training run."""

    steps: int
    seed: int
    result: Path


def embedding_shape(vocabulary: Vocabulary) -> Shape:
    """0.9M parameters: 1.0 MB as Q8_0."""
    return Shape(len(vocabulary.tokens), width=160, layers=3, heads=5, kv_heads=5, feed_forward=320, context=512)


class Tokens:
    """Texts as the network reads them: BOS first, as llama.cpp adds it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer: Tokenizer = text_encoder(vocabulary)
        self._bos = vocabulary.id_of(BOS)

    def padded(self, texts: list[str], most: int = MOST_TOKENS) -> tuple[Tensor, Tensor]:
        """Ids padded with zeros, and lengths."""
        rows = [
            [self._bos, *encoding.ids][:most]
            for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)
        ]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return ids, torch.tensor(list(map(len, rows)))


def train(run: Run, vocabulary: Vocabulary) -> None:
    """Train in one thread and write the checkpoint. Progress goes to stdout."""
    torch.manual_seed(run.seed)
    torch.set_num_threads(1)
    random, pairs, tokens = Random(run.seed), Pairs(), Tokens(vocabulary)
    encoder = Encoder(embedding_shape(vocabulary))
    optimizers = make_optimizers(encoder, encoder.linear_weights())
    started_s, average = time.monotonic(), 0.0
    for step in range(run.steps):
        set_rate(optimizers, rate_share(step, run.steps))
        batch = [pair for _ in range(CLUSTERS) for pair in pairs.cluster(random)]
        assert len(batch) == CLUSTERS * CLUSTER_PAIRS
        with torch.autocast("cpu", torch.bfloat16):
            left = embed(encoder, tokens, [pair.left for pair in batch])
            right = embed(encoder, tokens, [pair.right for pair in batch])
        loss = contrast(left, right, batch)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average = float(loss.detach()) if step == 0 else 0.95 * average + 0.05 * float(loss.detach())
        if (step + 1) % REPORT_EVERY_STEPS == 0:
            print(f"step={step + 1} loss={average:.4f} seconds={time.monotonic() - started_s:.0f}", flush=True)
            save(encoder, run.result)
    save(encoder, run.result)


def contrast(left: Tensor, right: Tensor, batch: list[Pair]) -> Tensor:
    """InfoNCE in both directions (van den Oord et al. 2018); texts of the same meaning are no negatives."""
    scores = left @ right.T / TEMPERATURE
    same = torch.tensor([[a.meaning == b.meaning for b in batch] for a in batch])
    same.fill_diagonal_(False)
    scores = scores.masked_fill(same, float("-inf"))
    partner = torch.arange(len(batch))
    return (F.cross_entropy(scores, partner) + F.cross_entropy(scores.T, partner)) / 2


def embed(encoder: Encoder, tokens: Tokens, texts: list[str]) -> Tensor:
    """Vectors of the texts; long and short ones apart, because padding costs as much as text."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = [order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]]
    vectors = [encoder(*tokens.padded([texts[i] for i in part])) for part in parts if part]
    places = torch.tensor(order).argsort()
    return torch.cat(vectors)[places]


def save(encoder: Encoder, path: Path) -> None:
    """Write shape and weights."""
    partial = path.with_suffix(".partial")
    torch.save({"shape": asdict(encoder.shape), "weights": encoder.state_dict()}, partial)
    partial.replace(path)


def load(path: Path) -> Encoder:
    """Read a checkpoint back."""
    stored = torch.load(path, map_location="cpu")
    encoder = Encoder(Shape(**stored["shape"]))
    encoder.load_state_dict(stored["weights"])
    return encoder.eval()
