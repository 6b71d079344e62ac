"""Random-weight models of any size, to measure speed with; they need no training and say nothing sensible."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tiny_model.gguf_file import FloatArray, Header, write_gguf
from tiny_model.vocabulary import Vocabulary, read_vocabulary

BUNDLED_MODEL = Path(__file__).resolve().parents[2] / "ryvion_node" / "models" / "ryvion-tiny.Q8_0.gguf"
HEAD_WIDTH = 64
LAYERS = 12
CONTEXT = 2048
PADDED_VOCABULARY = 8192
SPACE = "\u0120"


def write_random_model(path: Path, parameters: int = 100_000_000, quantisation: str = "Q8_0", seed: int = 0) -> None:
    """Write a llama GGUF of roughly `parameters` random weights with the bundled tokenizer, padded to 8,192 ids.

    Only words that begin with a space can be sampled greedily: the answer never ends early, never holds half a
    character, and its canonical token count is the number of tokens generated. Same arguments, same bytes.
    """
    vocabulary = read_vocabulary(BUNDLED_MODEL)
    header = _header(parameters, quantisation, seed)
    write_gguf(path, header, vocabulary, _tensors(header, vocabulary, np.random.default_rng(seed)))


def _header(parameters: int, quantisation: str, seed: int) -> Header:
    """Twelve layers or a little more, of a width that is a multiple of 256; a layer of width w has 12 w^2 weights."""
    width = max(256, round((parameters / (12 * LAYERS)) ** 0.5 / 256) * 256)
    layers = max(1, round((parameters - 2 * PADDED_VOCABULARY * width) / (12 * width**2)))
    heads = width // HEAD_WIDTH
    return Header(
        name=f"random-{parameters}-{seed}",
        licence="Apache-2.0",
        quantisation=quantisation,
        context=CONTEXT,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        feed_forward=-(-8 * width // 3 // 256) * 256,
        vocabulary=PADDED_VOCABULARY,
    )


def _tensors(
    header: Header, vocabulary: Vocabulary, random: np.random.Generator
) -> Iterator[tuple[str, FloatArray, str]]:
    def matrix(rows: int, columns: int) -> FloatArray:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)

    width, hidden, kind = header.width, header.feed_forward, header.quantisation
    gain = np.ones(width, np.float32)
    output = matrix(header.vocabulary, width) * np.float32(5)
    spoken = [i for i, token in enumerate(vocabulary.tokens) if token.startswith(SPACE) and len(token) > 2]
    silent = np.ones(header.vocabulary, bool)
    silent[spoken] = False
    output[silent] = 0
    yield "token_embd.weight", matrix(header.vocabulary, width), kind
    yield "output_norm.weight", gain, kind
    yield "output.weight", output, kind
    for layer in range(header.layers):
        yield f"blk.{layer}.attn_norm.weight", gain, kind
        yield f"blk.{layer}.ffn_norm.weight", gain, kind
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", matrix(width, width), kind
        yield f"blk.{layer}.ffn_gate.weight", matrix(hidden, width), kind
        yield f"blk.{layer}.ffn_up.weight", matrix(hidden, width), kind
        yield f"blk.{layer}.ffn_down.weight", matrix(width, hidden), kind


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--quantisation", default="Q8_0")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_random_model(options.path, options.parameters, options.quantisation, options.seed)


if __name__ == "__main__":
    main()
