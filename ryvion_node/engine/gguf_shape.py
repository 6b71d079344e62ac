"""What a GGUF's header says about the model's memory: the sizes of its tensors, and how long and wide its cache is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ryvion_node.engine import constants as limits
from ryvion_node.engine.gguf import Damaged, GgufHeader, MetadataReader, Skipped, damage_named, header_of

_DEFAULT_ALIGNMENT: Final = 32


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One block of the model."""

    weights_bytes: int
    key_value_width: int
    """Numbers that the cache holds per token: keys and values of all key-value heads."""
    state_bytes: int
    """Of a recurrent layer, per sequence; 0: the layer has a cache instead."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Everything that decides how much memory a model takes."""

    layers: tuple[LayerShape, ...]
    input_bytes: int
    """The token embedding: always in main memory."""
    output_bytes: int
    """What stands behind the last layer: norm and output; the token embedding once more where that is shared."""
    shares_embedding: bool
    context_tokens: int
    """Trained with."""
    vocabulary: int
    width: int
    feed_forward: int
    """Widest inner row of a layer; of a mixture, of all experts that one token uses."""
    pooling: int
    """llama.cpp's pooling type; above 0 the model embeds: it makes no logits."""
    parts: int
    """Files that the model is split into."""

    @property
    def weights_bytes(self) -> int:
        """Of the file's tensors."""
        shared = self.input_bytes if self.shares_embedding else 0
        return self.input_bytes + self.output_bytes - shared + sum(layer.weights_bytes for layer in self.layers)


def read_shape(path: Path) -> ModelShape:
    """Raises GgufError."""
    return read_header_and_shape(path)[1]


def read_header_and_shape(path: Path) -> tuple[GgufHeader, ModelShape]:
    """Read the file up to the tensors' data. Raises GgufError."""
    with damage_named(path), path.open("rb") as file:
        reader = MetadataReader(file)
        preamble = reader.preamble()
        if preamble.tensors > limits.MAX_HEADER_TENSORS:
            raise Damaged(f"claims {preamble.tensors} tensors")
        values = dict(reader.entry() for _ in range(preamble.entries))
        tensors = [reader.tensor() for _ in range(preamble.tensors)]
        begin = _aligned(reader.position, _number(values.get("general.alignment")) or _DEFAULT_ALIGNMENT)
        file.seek(0, 2)
        return header_of(preamble, values), _shape(values, _sizes(tensors, file.tell() - begin))


def _sizes(tensors: list[tuple[str, int]], data_bytes: int) -> dict[str, int]:
    """Size of each tensor: up to where the next one begins."""
    tensors = sorted(tensors, key=lambda tensor: tensor[1])
    ends = [*(offset for _name, offset in tensors[1:]), data_bytes]
    for (name, offset), end in zip(tensors, ends, strict=False):
        if end < offset:
            raise Damaged(f"truncated: {name[:64]} lies behind the end of the file")
    return {name: end - offset for (name, offset), end in zip(tensors, ends, strict=False)}


def _shape(values: Mapping[str, object], sizes: Mapping[str, int]) -> ModelShape:
    architecture = values.get("general.architecture")

    def number(key: str) -> int:
        return _number(values.get(f"{architecture}.{key}"))

    count = number("block_count")
    if count > limits.MAX_HEADER_LAYERS:
        raise Damaged(f"claims {count} layers")
    by_layer = [0] * count
    outside = 0
    for name, size in sizes.items():
        layer = _layer(name)
        if layer is not None and layer < count:
            by_layer[layer] += size
        elif not name.startswith("token_embd."):
            outside += size
    embedding = sizes.get("token_embd.weight", 0)
    shared = "output.weight" not in sizes
    width = number("embedding_length")
    heads = _per_layer(values.get(f"{architecture}.attention.head_count"), count)
    kv_heads = _per_layer(values.get(f"{architecture}.attention.head_count_kv"), count) or heads
    head_width = width // max(max(heads, default=1), 1)
    pair_width = (number("attention.key_length") or head_width) + (number("attention.value_length") or head_width)
    inner, state, groups = number("ssm.inner_size"), number("ssm.state_size"), number("ssm.group_count")
    recurrent = 4 * (inner * state + max(number("ssm.conv_kernel") - 1, 0) * (inner + 2 * groups * state))
    if not kv_heads or "bert" in str(architecture):
        # Encoders read a text in one step and keep nothing.
        kv_heads = (0,) * count
    experts = number("expert_feed_forward_length") * number("expert_used_count")
    return ModelShape(
        layers=tuple(
            LayerShape(weights, kv * pair_width, 0 if kv else recurrent)
            for weights, kv in zip(by_layer, kv_heads, strict=True)
        ),
        input_bytes=embedding,
        output_bytes=outside + (embedding if shared else 0),
        shares_embedding=shared,
        context_tokens=number("context_length"),
        vocabulary=number("vocab_size") or _length(values.get("tokenizer.ggml.tokens")),
        width=width,
        feed_forward=max(*_per_layer(values.get(f"{architecture}.feed_forward_length"), count), experts, 0, 0),
        pooling=number("pooling_type"),
        parts=_number(values.get("split.count")),
    )


def _layer(name: str) -> int | None:
    start, _, rest = name.partition(".")
    digits = rest.partition(".")[0]
    return int(digits) if start == "blk" and digits.isdecimal() and len(digits) < 6 else None


def _per_layer(value: object, count: int) -> tuple[int, ...]:
    """One number for all layers, or one for each; empty when there is none."""
    if isinstance(value, tuple):
        if len(value) < count:
            raise Damaged(f"names {len(value)} layers where it has {count}")
        return tuple(_number(item) for item in value[:count])
    return (_number(value),) * count if _number(value) else ()


def _number(value: object) -> int:
    whole = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if whole > limits.MAX_HEADER_NUMBER:
        raise Damaged(f"claims a size of {whole}")
    return max(whole, 0)


def _length(value: object) -> int:
    return value.items if isinstance(value, Skipped) else len(value) if isinstance(value, tuple) else 0


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
