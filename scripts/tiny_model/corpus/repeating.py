"""Tasks that ask to repeat a text which the model has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from tiny_model.corpus.exchange import Exchange, upper_first
from tiny_model.corpus.invention import NAMES, WORDS, code, letters, number, person, place, pseudo_word, time_of_day

REQUESTS: Final = (
    "Repeat: {}",
    "Repeat after me: {}",
    "Say: {}",
    "Echo: {}",
    "Please repeat: {}",
    "Repeat this: {}",
    "Write: {}",
    "Please say: {}",
    "Repeat exactly: {}",
    "Copy: {}",
    "Repeat the following text: {}",
    "repeat: {}",
    "Repeat the words: {}",
    'Say "{}"',
    'Repeat "{}"',
    'Repeat the word "{}"',
    'Write "{}"',
)
BARE_REQUESTS: Final = ("Repeat {}", "Echo {}", "Repeat the words {}", "Repeat the word {}", "Say the word {}")
"""Only for texts without a capital or a mark, where it is clear what to repeat."""
MARKS: Final = ("", "", "", "", ".", "!", "?", ",")


def repeat_task(random: Random, sentences: Sequence[str]) -> Exchange:
    """A request to repeat invented words, strings, numbers, or one of the given sentences."""
    kind = random.random()
    if kind < 0.12:
        return Exchange(random.choice(REQUESTS).format(sentence := random.choice(sentences)), sentence)
    if kind < 0.62:
        text = " ".join(
            _word(random) for _ in range(random.choices(range(1, 11), (30, 20, 14, 9, 7, 6, 5, 4, 3, 2))[0])
        )
        if random.random() < 0.25:
            return Exchange(random.choice(BARE_REQUESTS).format(text), text)
    else:
        text = " ".join(_thing(random) for _ in range(random.choices((1, 2, 3, 4, 6), (40, 25, 15, 12, 8))[0]))
    if random.random() < 0.3:
        text = upper_first(text)
    text += random.choice(MARKS)
    return Exchange(random.choice(REQUESTS).format(text), text)


def _word(random: Random) -> str:
    return pseudo_word(random) if random.random() < 0.7 else random.choice(WORDS)


def _thing(random: Random) -> str:
    makers = (letters, code, number, person, place, time_of_day, pseudo_word, letters)
    if random.random() < 0.1:
        return random.choice(NAMES)
    return random.choice(makers)(random)
