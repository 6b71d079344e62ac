"""How much memory a model takes before it is loaded. Pure: sizes in, sizes out.

The figures follow what llama.cpp allocates (src/llama-kv-cache.cpp, src/llama-context.cpp): every tensor as it lies in
the file, keys and values of every layer in 16 bits for each cell, and one buffer for the widest moment of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ryvion_node.engine import constants as limits
from ryvion_node.engine.gguf_shape import ModelShape

_CACHE_NUMBER_BYTES: Final = 2
_CELLS_STEP: Final = 256
"""llama.cpp rounds the cells of a sequence up to this."""
_OWN_THREADS: Final = 8
"""Of a worker besides those that compute."""
_GIB: Final = 1024**3
_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in main memory and on the GPU: what something takes, or what there is."""

    host_bytes: int
    gpu_bytes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.host_bytes + other.host_bytes, self.gpu_bytes + other.gpu_bytes)

    def fits(self, room: Memory) -> bool:
        return self.host_bytes <= room.host_bytes and self.gpu_bytes <= room.gpu_bytes


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What one loaded model takes."""

    weights_bytes: int
    cache_bytes: int
    """Keys and values, or recurrent state, of all slots."""
    compute_bytes: int
    gpu_bytes: int
    """So much of the sum lies on the GPU."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.compute_bytes

    @property
    def need(self) -> Memory:
        return Memory(self.total_bytes - self.gpu_bytes, self.gpu_bytes)


def estimate(
    shape: ModelShape, *, slots: int, context_tokens: int, gpu_layers: int = 0, has_gpu: bool = False
) -> MemoryEstimate:
    """`gpu_layers` as in the configuration: -1 is all; without a GPU nothing lies there."""
    on_gpu = _layers_on_gpu(shape, gpu_layers) if has_gpu else 0
    # The output counts as the layer behind the last, the layers before the first that fits stay in main memory.
    first = len(shape.layers) + 1 - on_gpu
    plan = _Plan.of(shape, slots, context_tokens, gpu=on_gpu > 0)
    caches = [
        layer.state_bytes * plan.sequences or layer.key_value_width * _CACHE_NUMBER_BYTES * plan.cells
        for layer in shape.layers
    ]
    weights, gpu = shape.weights_bytes, 0
    if on_gpu:
        gpu = plan.compute_bytes + shape.output_bytes + sum(caches[first:])
        gpu += sum(layer.weights_bytes for layer in shape.layers[first:])
        if shape.shares_embedding:
            weights += shape.input_bytes
    return MemoryEstimate(weights, sum(caches), plan.compute_bytes, gpu)


def context_of(shape: ModelShape, configured: int | None) -> int:
    """Context per job in tokens: the configured one, else what the model was trained with within the default."""
    default = limits.DEFAULT_EMBEDDING_CONTEXT_TOKENS if shape.pooling else limits.DEFAULT_CONTEXT_TOKENS
    return configured or min(shape.context_tokens, default)


def address_space_bytes(taken: MemoryEstimate, shape: ModelShape, threads: int) -> int:
    """The limit for a worker without a GPU: an honest model stays far below, a runaway one ends in its own process."""
    # Twice the weights: some are rearranged for the processor while the file is still mapped.
    model = 2 * taken.weights_bytes + taken.cache_bytes + taken.compute_bytes
    scoring = 4 * shape.vocabulary * limits.CPU_BATCH_TOKENS
    return model + scoring + limits.WORKER_SLACK_BYTES + (threads + _OWN_THREADS) * limits.WORKER_THREAD_BYTES


def shown(size_bytes: int) -> str:
    """A size for a person, such as 3.4 GiB."""
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes / _MIB:.1f} MiB"


def _layers_on_gpu(shape: ModelShape, gpu_layers: int) -> int:
    whole = len(shape.layers) + 1
    return whole if gpu_layers < 0 else min(gpu_layers, whole)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A worker's context, as `worker/loading.py` makes it."""

    sequences: int
    cells: int
    """Tokens that the cache has room for, all sequences together."""
    compute_bytes: int
    """A mask of rows by the cells that they see, then either the logits or the widest layer."""

    @classmethod
    def of(cls, shape: ModelShape, slots: int, context_tokens: int, *, gpu: bool) -> _Plan:
        layer = 4 * (4 * shape.width + 3 * shape.feed_forward)
        if shape.pooling:
            # A text is read in one step and forgotten after it.
            rows = _whole_cells(max(context_tokens, limits.CPU_BATCH_TOKENS))
            return cls(limits.EMBED_STEP_TEXTS, rows, 2 * rows * rows + rows * layer)
        most = limits.GPU_BATCH_TOKENS if gpu else limits.CPU_BATCH_TOKENS
        rows, seen = min(most, context_tokens * slots), _whole_cells(context_tokens)
        logits = 4 * (shape.vocabulary + 2 * shape.width)
        compute = 2 * seen * rows + rows * max(logits, layer) + 4 * slots * shape.vocabulary
        return cls(slots, slots * seen, compute)


def _whole_cells(tokens: int) -> int:
    return -(-tokens // _CELLS_STEP) * _CELLS_STEP
