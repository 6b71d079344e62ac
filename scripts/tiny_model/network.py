"""The network: a llama-architecture decoder, laid out so that its weights export to GGUF one to one.

RMS norm, interleaved RoPE, grouped-query attention, SwiGLU, tied embeddings, no biases. With `ternary=True`
every linear layer computes with the values that a TQ2_0 tensor can hold (BitNet b1.58 style, straight-through).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
BLOCK_WEIGHTS = 256
"""Weights of a row that share one scale in TQ2_0; every linear layer's input width is a multiple of it."""

SHORT_ROW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network. The defaults make 2.6M parameters: 2.8 MB as Q8_0, 0.9 MB as TQ2_0."""

    vocabulary: int
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 256
    context: int = 1024

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


def ternary_values(weight: Tensor) -> Tensor:
    """Round each block of 256 weights of a row to scale * {-1, 0, 1}.

    The scale is the block's mean absolute value, rounded to bfloat16: float16 (what the file stores) holds it
    exactly, and autocast cannot change it, so that training and inference see the same numbers.
    """
    blocks = weight.float().reshape(weight.shape[0], -1, BLOCK_WEIGHTS)
    scale = blocks.abs().mean(-1, keepdim=True).clamp_min(1e-4).bfloat16().float()
    return (scale * (blocks / scale).round().clamp(-1, 1)).reshape(weight.shape)


class Linear(nn.Linear):
    """A linear layer without bias, optionally computing with its weights rounded to ternary values."""

    def __init__(self, inputs: int, outputs: int, ternary: bool) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.ternary = ternary
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Gradients of the rounding pass straight through to the float weights."""
        weight = self.weight
        if self.ternary:
            weight = weight + (ternary_values(weight) - weight).detach()
        return F.linear(x, weight)


class Norm(nn.Module):
    """RMS norm with a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out as in, already in autocast's type so that it is converted once and not for each use."""
        normal = F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPSILON)
        kind = x.device.type
        return normal.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else normal


def rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position's angles, (context, head width / 2) each."""
    half = torch.arange(0, shape.head_width, 2).float() / shape.head_width
    angles = torch.outer(torch.arange(shape.context).float(), ROPE_BASE**-half)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels (llama.cpp's interleaved RoPE) by its position's angle."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention under a mask, causal without one; short rows on a CPU are faster with the scores written out."""
    tokens = q.shape[-2]
    if mask is None and (q.device.type != "cpu" or tokens > SHORT_ROW_TOKENS):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if mask is None:
        mask = torch.full((tokens, tokens), float("-inf"), dtype=q.dtype).triu(1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask.to(q.dtype)
    attended: Tensor = scores.softmax(-1) @ v
    return attended


class Block(nn.Module):
    """One layer: attention, then SwiGLU, each after a norm and with a residual."""

    def __init__(self, shape: Shape, ternary: bool) -> None:
        super().__init__()
        self.shape = shape
        keys = shape.kv_heads * shape.head_width
        self.attn_norm, self.ffn_norm = Norm(shape.width), Norm(shape.width)
        self.attn_q = Linear(shape.width, shape.width, ternary)
        self.attn_k = Linear(shape.width, keys, ternary)
        self.attn_v = Linear(shape.width, keys, ternary)
        self.attn_output = Linear(shape.width, shape.width, ternary)
        self.ffn_gate = Linear(shape.width, shape.feed_forward, ternary)
        self.ffn_up = Linear(shape.width, shape.feed_forward, ternary)
        self.ffn_down = Linear(shape.feed_forward, shape.width, ternary)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None = None) -> Tensor:
        """(rows, tokens, width) in and out; the tables are (tokens, head width / 2); the mask is added to the scores."""
        rows, tokens, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, tokens, -1, self.shape.head_width).transpose(1, 2)

        h = self.attn_norm(x)
        q = rotate(split(self.attn_q(h)), cosine, sine)
        k = rotate(split(self.attn_k(h)), cosine, sine)
        v = split(self.attn_v(h))
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        attended = attend(q, k, v, mask)
        x = x + self.attn_output(attended.transpose(1, 2).reshape(rows, tokens, width))
        h = self.ffn_norm(x)
        gated: Tensor = F.silu(self.ffn_gate(h)) * self.ffn_up(h)
        out: Tensor = x + self.ffn_down(gated)
        return out


class Network(nn.Module):
    """The whole language model: token ids in, logits out."""

    def __init__(self, shape: Shape, *, ternary: bool) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.token_embd.weight, std=0.02)
        self.blk = nn.ModuleList(Block(shape, ternary) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        cosine, sine = rotation(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (rows, tokens) to logits (rows, tokens, vocabulary)."""
        x = self.token_embd(ids)
        tokens = ids.shape[1]
        for block in self.blk:
            x = block(x, self.cosine[:tokens], self.sine[:tokens])
        logits: Tensor = self.output_norm(x) @ self.token_embd.weight.T
        return logits

    def linear_weights(self) -> list[nn.Parameter]:
        """The matrices that Muon trains and that become ternary; embedding and norms are the others."""
        return [weight for module in self.modules() if isinstance(module, Linear) for weight in module.parameters()]
