"""Builds the bundled embedding model from nothing but the chat models' tokenizer: corpus, training, GGUF file.

    python scripts/build_embedding_model.py            # everything, on one core
    python scripts/build_embedding_model.py --help

Needs the dependency group `train`. Checkpoint and file go to --folder; nothing in the package is touched unless
--install copies the file there and writes its SHA-256 into models.toml.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Final

from tiny_model.embedding.training import Run, load, train
from tiny_model.export import export_encoder
from tiny_model.install import PACKAGE_MODELS, install
from tiny_model.vocabulary import read_vocabulary

TOKENIZER: Final = PACKAGE_MODELS / "ryvion-tiny.Q8_0.gguf"
NAME: Final = "ryvion-embed-tiny"
FILE: Final = f"{NAME}.Q8_0.gguf"


def main() -> None:
    """Run the steps that are asked for."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(TOKENIZER)
    weights, file = options.folder / "encoder.pt", options.folder / FILE
    if not options.export_only:
        train(Run(options.steps, options.seed, weights), vocabulary)
    export_encoder(load(weights), vocabulary, NAME, file)
    print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}")
    if options.install:
        install(file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/embedding-model"), help="where everything is written"
    )
    parser.add_argument("--steps", type=int, default=700, help="steps of 128 pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="do not train, export the checkpoint in --folder")
    parser.add_argument("--install", action="store_true", help="copy the file into the package")
    return parser.parse_args()


if __name__ == "__main__":
    main()
