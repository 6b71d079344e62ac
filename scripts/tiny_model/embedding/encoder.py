"""The embedding network: the chat models' blocks without the causal mask, a mean over all tokens, a unit vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_model.network import Block, Linear, Norm, Shape, rotation


class Encoder(nn.Module):
    """Token ids in, unit vectors out. The module names are the GGUF names."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.token_embd.weight, std=0.02)
        self.blk = nn.ModuleList(Block(shape, ternary=False) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        cosine, sine = rotation(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Ids (texts, tokens), padded to the right, and the texts' lengths to vectors (texts, width)."""
        tokens = ids.shape[1]
        real = torch.arange(tokens) < lengths[:, None]
        mask = torch.zeros(real.shape).masked_fill(~real, float("-inf"))[:, None, None, :]
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, self.cosine[:tokens], self.sine[:tokens], mask)
        x = self.output_norm(x).float()
        mean = (x * real[:, :, None]).sum(1) / lengths[:, None]
        return F.normalize(mean, dim=-1)

    def linear_weights(self) -> list[nn.Parameter]:
        """The matrices that Muon trains."""
        return [weight for module in self.modules() if isinstance(module, Linear) for weight in module.parameters()]
