"""Builds the two bundled chat models from nothing: corpus, tokenizer, training, GGUF files.

    python scripts/build_tiny_model.py            # everything, on the CPU
    python scripts/build_tiny_model.py --help

Needs the dependency group `train`. Checkpoints and files go to --folder; nothing in the package is touched unless
--install copies the files there and writes their SHA-256 into models.toml.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from tiny_model.corpus.conversation import Corpus
from tiny_model.export import export
from tiny_model.install import install
from tiny_model.tokenizer import train_vocabulary
from tiny_model.train import Run, load, train
from tiny_model.vocabulary import Vocabulary, load_vocabulary, save_vocabulary

FLOAT_FILE: Final = "ryvion-tiny.Q8_0.gguf"
TERNARY_FILE: Final = "tinyllama.TQ2_0.gguf"
VOCABULARY_TOKENS: Final = 1024
WHOLE_WORD_TOKENS: Final = 192
VOCABULARY_SEED: Final = 1
SAMPLED_CONVERSATIONS: Final = 800


def main() -> None:
    """Run the steps that are asked for."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary(options.folder / "vocabulary.json")
    float_weights, ternary_weights = options.folder / "float.pt", options.folder / "ternary.pt"
    if not options.export_only:
        _train(options, vocabulary, float_weights, ternary_weights)
    export(load(float_weights, ternary=False), vocabulary, "ryvion-tiny", "Q8_0", options.folder / FLOAT_FILE)
    export(load(ternary_weights, ternary=True), vocabulary, "tinyllama", "TQ2_0", options.folder / TERNARY_FILE)
    for name in (FLOAT_FILE, TERNARY_FILE):
        print(f"{hashlib.sha256((options.folder / name).read_bytes()).hexdigest()}  {options.folder / name}")
        if options.install:
            install(options.folder / name)


def _train(options: argparse.Namespace, vocabulary: Vocabulary, float_weights: Path, ternary_weights: Path) -> None:
    """Float weights first, then ternary ones from there."""
    common = Run(
        steps=options.float_steps,
        seed=options.seed,
        ternary=False,
        device=options.device,
        workers=options.workers,
        start=options.start,
        result=float_weights,
        peak=options.peak,
    )
    train(common, vocabulary)
    ternary = replace(common, steps=options.ternary_steps, ternary=True, start=float_weights, result=ternary_weights)
    train(replace(ternary, peak=1.0), vocabulary)


def _vocabulary(path: Path) -> Vocabulary:
    """The one that the folder's checkpoints were trained with, or a new one from the corpus."""
    if path.exists():
        return load_vocabulary(path)
    corpus, random = Corpus(), Random(VOCABULARY_SEED)
    sampled = [
        message.content
        for _ in range(SAMPLED_CONVERSATIONS)
        for message in islice(corpus.conversation(random, most_sources=4), 6)
    ]
    vocabulary = train_vocabulary(corpus.fixed_texts(), sampled, VOCABULARY_TOKENS, WHOLE_WORD_TOKENS)
    save_vocabulary(vocabulary, path)
    return vocabulary


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/tiny-model"), help="where everything is written")
    parser.add_argument("--float-steps", type=int, default=3000, help="steps of 4,096 tokens with float weights")
    parser.add_argument("--ternary-steps", type=int, default=1500, help="steps with ternary weights, from there")
    parser.add_argument("--start", type=Path, help="float checkpoint to begin from instead of nothing")
    parser.add_argument("--peak", type=float, default=1.0, help="share of the full learning rate for the float steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, choices=(1, 2, 4), default=2, help="processes; use 1 with cuda")
    parser.add_argument("--export-only", action="store_true", help="do not train, export the checkpoints in --folder")
    parser.add_argument("--install", action="store_true", help="copy the files into the package")
    return parser.parse_args()


if __name__ == "__main__":
    main()
