"""Checks that training and llama.cpp cut any text into the same tokens."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from tiny_model.corpus.conversation import Corpus
from tiny_model.play import Player
from tiny_model.tokenizer import encoder
from tiny_model.vocabulary import CONTROL_TOKENS, read_vocabulary

ODD_TEXTS: Final = (
    "",
    " ",
    "  two  spaces ",
    "tab\tand\nlines\n\n\r\nend",
    "naïve café, Ærøskøbing, Zürich, ¿qué?",
    "日本語とカタカナ、한국어, Ελληνικά, русский, עברית, العربية, हिन्दी",
    "🙂👩‍👩‍👧‍👦 ½ ² Ⅷ ٣",
    "it's we'll I'd THEY'RE 'tis",
    "a1b22c333 3.14159 -5e10 0x1F #[]{}<>|\\/`~^",
    "\u00a0nbsp\u2028line\u200bzero\ufeffbom e\u0301",
    *CONTROL_TOKENS,
)
RANDOM_TEXTS: Final = 500


def main() -> None:
    """Compare on odd texts, random Unicode and the corpus; exit 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model
    player, tokenizer, random = Player(path), encoder(read_vocabulary(path)), Random(0)
    texts = [*ODD_TEXTS, *(_random_text(random) for _ in range(RANDOM_TEXTS))]
    corpus = Corpus()
    for _ in range(RANDOM_TEXTS):
        texts += [message.content for message in islice(corpus.conversation(random, 4), 4)]
    for text in texts:
        ours, theirs = tokenizer.encode(text, add_special_tokens=False).ids, player.tokens(text)
        if ours != theirs:
            raise SystemExit(f"{text!r}: {ours} here, {theirs} in llama.cpp")
    print(f"{len(texts)} texts, all the same")


def _random_text(random: Random) -> str:
    """Up to 40 characters from all over Unicode, surrogates left out."""
    ranges = ((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x5FF), (0x900, 0x97F), (0x3040, 0x30FF), (0x1F300, 0x1F64F))
    return "".join(chr(random.randint(*random.choice(ranges))) for _ in range(random.randint(1, 40)))


if __name__ == "__main__":
    main()
