"""Trains the byte-level BPE and encodes with it exactly as llama.cpp's "gpt-2" pre-tokenizer does.

Word pieces are learned without the space before a word, digits never merge, and only whole frequent words get a
token that includes the space. So an unseen word or number is the same tokens wherever it stands in a sentence,
which lets a small network copy it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tiny_model.vocabulary import CONTROL_TOKENS, Vocabulary

SPACE = "\u0120"
"""The space in GPT-2's byte alphabet."""


def train_vocabulary(fixed: Sequence[str], invented: Sequence[str], size: int, whole_words: int) -> Vocabulary:
    """Learn `size` tokens, the last `whole_words` of them a space and a frequent whole word of the fixed texts."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - whole_words,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator([*fixed, *invented], trainer)
    known = pieces.get_vocab()
    counts = Counter(word for text in fixed for word in re.findall(r" ([A-Za-z]{2,})(?![A-Za-z])", text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in ordered if word in known][:whole_words]
    if len(words) < whole_words:
        raise ValueError(f"only {len(words)} whole words in the texts")
    merges = [*_merges(pieces), *((SPACE, word) for word in words)]
    return Vocabulary(
        (*sorted(known, key=lambda token: known[token]), *(SPACE + word for word in words)), tuple(merges)
    )


def encoder(vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer of this vocabulary. It never parses control tokens: their ids are added by the caller."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(vocabulary.merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    return [(left, right) for left, right in pairs]
