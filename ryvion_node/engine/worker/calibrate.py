"""Tests a fresh context with a short decode and measures how long its steps take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ryvion_node.engine.constants import CALIBRATION_S, MIN_CHUNK_TOKENS, STEP_TARGET_S
from ryvion_node.engine.worker.llama import Context, LlamaError

_PROMPT_TOKENS = 16
"""Read by each sequence before steps are measured."""
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """Best times seen."""

    step_s: dict[int, float]
    """By number of sequences; not every number is measured on slow machines."""
    prompt_s_per_token: float


def measure(context: Context, slots: int, context_tokens: int, on_stage: Callable[[str], None]) -> Measured:
    """Takes about CALIBRATION_S, on large models a few steps. Raises LlamaError if the output is no numbers."""
    on_stage("testing")
    _self_test(context)
    on_stage("measuring")
    start = time.perf_counter()
    prompt_s = _prompt_speed(context, context_tokens, start + CALIBRATION_S / 3)
    end = start + CALIBRATION_S
    length = min(_PROMPT_TOKENS, context_tokens // 2)
    lengths = [length] * slots
    for sequence in range(slots):
        _read(context, sequence, length)
    step_s: dict[int, float] = {}
    sizes = _order(slots)
    # Rounds, so that a moment in which the machine was busy spoils one measurement of each size, not all of one.
    for size in sizes * _ROUNDS:
        if time.perf_counter() > end and {1, slots} <= step_s.keys():
            break
        on_stage("measuring")
        seconds = _step(context, lengths, size, context_tokens)
        step_s[size] = min(seconds, step_s.get(size, seconds))
    for sequence in range(slots):
        context.forget(sequence)
    return Measured(step_s, prompt_s)


def _self_test(context: Context) -> None:
    """Warms up too: the first decode touches all weights."""
    context.put(0, 0, [0], want_logits=True)
    context.decode()
    logits = context.logits(0)
    context.forget(0)
    if not np.isfinite(logits).all():
        raise LlamaError("the weights give no numbers: the file is damaged")


def _prompt_speed(context: Context, context_tokens: int, end: float) -> float:
    """Seconds per prompt token, at the chunk size that fits the step time."""
    rows = min(MIN_CHUNK_TOKENS, context_tokens - 1)
    best = _read(context, 0, rows) / rows
    while time.perf_counter() < end:
        wanted = min(context.batch_tokens, context_tokens - 1, max(rows, int(STEP_TARGET_S / best)))
        best = min(best, _read(context, 0, wanted) / wanted)
        if wanted == rows:
            break
        rows = wanted
    context.forget(0)
    return best


def _read(context: Context, sequence: int, rows: int) -> float:
    context.forget(sequence)
    return _timed(context, context.put(sequence, 0, [0] * rows, want_logits=True))


def _step(context: Context, lengths: list[int], size: int, context_tokens: int) -> float:
    row = 0
    for sequence in range(size):
        if lengths[sequence] >= context_tokens:
            context.forget(sequence)
            lengths[sequence] = 0
        row = context.put(sequence, lengths[sequence], [0], want_logits=True)
        lengths[sequence] += 1
    return _timed(context, row)


def _timed(context: Context, row: int) -> float:
    start = time.perf_counter()
    context.decode()
    # Backends may compute behind our back: reading the logits waits for them.
    context.logits(row)
    return time.perf_counter() - start


def _order(slots: int) -> list[int]:
    """One, all, then the most telling sizes first; what is left out is measured when it first happens."""
    telling = [2, 4, 3, 8, 6, 16, 12, 32, 24, 48]
    return list(dict.fromkeys([1, slots, *(size for size in telling if size < slots)]))
