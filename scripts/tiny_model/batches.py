"""Rows of token ids with a weight for each token, as the training eats them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tiny_model.corpus.conversation import Corpus
from tiny_model.tokenizer import encoder
from tiny_model.vocabulary import BOS, END, Vocabulary

PROMPT_WEIGHT: Final = 0.05
CUT_SHARE: Final = 0.3
"""Answers that are cut at any character and encoded in two parts, as an answer to continue is."""


@dataclass(frozen=True, slots=True)
class BatchForm:
    """Rows of one length, and how many sources a task in them may have."""

    rows: int
    tokens: int
    most_sources: int


SHORT, MIDDLE, LONG, LONGEST = (
    BatchForm(32, 128, 2),
    BatchForm(16, 256, 5),
    BatchForm(8, 512, 8),
    BatchForm(4, 1024, 18),
)
SEQUENCE: Final = (SHORT, MIDDLE, SHORT, MIDDLE, SHORT, LONG, SHORT, MIDDLE, SHORT, MIDDLE, SHORT, LONGEST)
"""Forms of successive steps; each has 4,096 tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids (rows, tokens + 1) and the loss weight of each id after the first (rows, tokens)."""

    ids: Tensor
    weights: Tensor


class Batches:
    """An endless, seeded stream of batches; each of `workers` gets its share of the rows of every step."""

    def __init__(self, vocabulary: Vocabulary, seed: int, worker: int = 0, workers: int = 1) -> None:
        tokenizer: Tokenizer = encoder(vocabulary)
        self._random = Random(f"{seed}/{worker}/{workers}")
        self._workers = workers
        self._corpus = Corpus()
        self._encode = lru_cache(200_000)(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids))
        self._roles = {role: vocabulary.id_of(f"<|{role}|>") for role in ("system", "user", "assistant")}
        self._bos, self._end = vocabulary.id_of(BOS), vocabulary.id_of(END)
        self._forms = cycle(SEQUENCE)

    def next(self) -> Batch:
        """The batch of the next step."""
        form = next(self._forms)
        rows = [self._row(form) for _ in range(form.rows // self._workers)]
        ids = torch.tensor([row[0] for row in rows])
        weights = torch.tensor([row[1] for row in rows])
        return Batch(ids, weights[:, 1:])

    def _row(self, form: BatchForm) -> tuple[list[int], list[float]]:
        ids, weights = [self._bos], [0.0]
        for message in self._corpus.conversation(self._random, form.most_sources):
            answers = message.role == "assistant"
            given, rest = self._split(message.content) if answers else (self._encode(message.content), ())
            ids += (self._roles[message.role], *given, *rest, self._end)
            if answers:
                weights += [PROMPT_WEIGHT] * (1 + len(given)) + [1.0] * (len(rest) + 1)
            else:
                weights += [PROMPT_WEIGHT] * (len(given) + 2)
            if len(ids) > form.tokens:
                break
        return ids[: form.tokens + 1], weights[: form.tokens + 1]

    def _split(self, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The part that is given and the part to learn; mostly nothing is given."""
        if self._random.random() >= CUT_SHARE:
            return (), self._encode(answer)
        cut = self._random.randrange(len(answer) + 1)
        return self._encode(answer[:cut]), self._encode(answer[cut:])
