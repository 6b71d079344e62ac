"""From a checkpoint to a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tiny_model.embedding.encoder import Encoder
from tiny_model.gguf_file import FloatArray, Header, write_gguf
from tiny_model.network import Linear, Network, Shape, ternary_values
from tiny_model.vocabulary import Vocabulary

LICENCE: Final = "Apache-2.0"


def export(network: Network, vocabulary: Vocabulary, name: str, quantisation: str, path: Path) -> None:
    """Write the network; linear layers as `quantisation`, the embedding as Q8_0.

    TQ2_0 needs a network that was trained ternary: its values go into the file without any further rounding.
    """
    header = _header(name, quantisation, network.shape, embeds=False)
    write_gguf(path, header, vocabulary, _tensors(network, quantisation))


def export_encoder(encoder: Encoder, vocabulary: Vocabulary, name: str, path: Path) -> None:
    """Write an embedding network as Q8_0."""
    header = _header(name, "Q8_0", encoder.shape, embeds=True)
    write_gguf(path, header, vocabulary, _tensors(encoder, "Q8_0"))


def _header(name: str, quantisation: str, shape: Shape, *, embeds: bool) -> Header:
    return Header(
        name=name,
        licence=LICENCE,
        quantisation=quantisation,
        embeds=embeds,
        context=shape.context,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        feed_forward=shape.feed_forward,
        vocabulary=shape.vocabulary,
    )


def _tensors(network: Network | Encoder, quantisation: str) -> Iterator[tuple[str, FloatArray, str]]:
    """The module names are the GGUF names, so there is nothing to translate."""
    ternary = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, Linear) and module.ternary
    }
    for name, weight in network.state_dict().items():
        values = ternary_values(weight) if name in ternary else weight
        yield name, _numpy(values), "Q8_0" if name == "token_embd.weight" else quantisation


def _numpy(values: torch.Tensor) -> FloatArray:
    return values.detach().float().numpy().astype(np.float32)
