"""Writes llama-architecture GGUF files: the header that llama.cpp needs, the tokenizer, the tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType

from tiny_model.vocabulary import Vocabulary, write_vocabulary

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says about itself; sizes as in network.Shape."""

    name: str
    licence: str
    quantisation: str
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    embeds: bool = False
    """A network that reads a whole text at once and gives one vector: the mean of its tokens'."""


def write_gguf(
    path: Path, header: Header, vocabulary: Vocabulary, tensors: Iterable[tuple[str, FloatArray, str]]
) -> None:
    """Write one file. Tensors are (GGUF name, values, quantisation); vectors are stored as F32 whatever they say."""
    writer = GGUFWriter(path, "llama")
    writer.add_name(header.name)
    writer.add_license(header.licence)
    writer.add_context_length(header.context)
    writer.add_embedding_length(header.width)
    writer.add_block_count(header.layers)
    writer.add_feed_forward_length(header.feed_forward)
    writer.add_head_count(header.heads)
    writer.add_head_count_kv(header.kv_heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(header.width // header.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{header.quantisation}"])
    writer.add_vocab_size(header.vocabulary)
    if header.embeds:
        writer.add_causal_attention(False)
        writer.add_pooling_type(PoolingType.MEAN)
    write_vocabulary(writer, vocabulary, padded_to=header.vocabulary, chats=not header.embeds)
    for name, values, quantisation in tensors:
        _add_tensor(writer, name, values, GGMLQuantizationType[quantisation])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensor(writer: GGUFWriter, name: str, values: FloatArray, kind: GGMLQuantizationType) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
        return
    stored = gguf.quants.quantize(values, kind)
    if kind == GGMLQuantizationType.TQ2_0 and not np.array_equal(gguf.quants.dequantize(stored, kind), values):
        raise ValueError(f"{name} is not ternary: storing it as TQ2_0 would change it")
    writer.add_tensor(name, stored, raw_dtype=kind)
