"""Damaged and forged model files: each is withdrawn with a reason, and nothing else suffers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import REQUEST, TINY, collect, end_of, failure, running

from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.memory import Memory

WHOLE = TINY.read_bytes()


def numbered(key: str, value: int) -> Callable[[bytes], bytes]:
    """The file with another 32-bit number under a key."""

    def forge(data: bytes) -> bytes:
        at = data.index(key.encode()) + len(key) + 4
        return data[:at] + struct.pack("<I", value) + data[at + 4 :]

    forge.__name__ = f"{key}={value}"
    return forge


def long_text(data: bytes) -> bytes:
    """A text that claims 2^62 bytes."""
    at = data.index(b"general.name") + len("general.name") + 4
    return data[:at] + struct.pack("<Q", 2**62) + data[at + 8 :]


def long_array(data: bytes) -> bytes:
    """A vocabulary of 2^61 tokens."""
    at = data.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    return data[:at] + struct.pack("<Q", 2**61) + data[at + 8 :]


def far_tensor(data: bytes) -> bytes:
    """A tensor that begins far behind the end."""
    name = b"output_norm.weight"
    at = data.index(name) + len(name) + 4 + 8 + 4
    return data[:at] + struct.pack("<Q", 2**50) + data[at + 8 :]


def wide_tensor(data: bytes) -> bytes:
    """A tensor of more numbers than there are bytes."""
    name = b"output_norm.weight"
    at = data.index(name) + len(name) + 4
    return data[:at] + struct.pack("<Q", 2**40) + data[at + 8 :]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def empty(_data: bytes) -> bytes:
    return b""


def wrong_magic(data: bytes) -> bytes:
    return b"GGML" + data[4:]


def many_entries(data: bytes) -> bytes:
    return data[:16] + b"\xff" * 8 + data[24:]


def many_tensors(data: bytes) -> bytes:
    return data[:8] + struct.pack("<Q", 2**40) + data[16:]


def not_numbers(data: bytes) -> bytes:
    """Weights that are all NaN."""
    return data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2)


CUTS = [5, 24, 100, 1_000, 10_000, 20_000, 40_000, len(WHOLE) // 3, len(WHOLE) - 100_000, len(WHOLE) - 1]
FORGERIES = [
    zeros,
    empty,
    wrong_magic,
    many_entries,
    many_tensors,
    long_text,
    long_array,
    far_tensor,
    wide_tensor,
    not_numbers,
    numbered("llama.block_count", 0),
    numbered("llama.block_count", 7),
    numbered("llama.block_count", 2**31),
    numbered("llama.attention.head_count", 0),
    numbered("llama.attention.head_count_kv", 3),
    numbered("llama.embedding_length", 2**31),
    numbered("llama.context_length", 0),
    numbered("llama.rope.dimension_count", 2**31),
]


async def withdrawn(engine: LlamaEngine, names: list[str]) -> None:
    """Each of them is broken for a reason that names its file, and the sound model serves."""
    statuses = {status.name: status for status in engine.status()}
    for name in names:
        assert statuses[name].state == "broken", (name, statuses[name])
        assert f"{name}.gguf" in statuses[name].reason, (name, statuses[name])
    assert (await failure(engine, replace(REQUEST, model=names[0]))).code == "model_broken"
    assert end_of(await collect(engine, REQUEST))


@pytest.mark.parametrize("limited", [False, True], ids=["by the worker", "by the node"])
async def test_truncated_files(spec: ModelSpec, tmp_path: Path, limited: bool) -> None:
    """Both the node, which estimates memory, and a worker that is handed the file find it."""
    for cut in CUTS:
        (tmp_path / f"cut-{cut}.gguf").write_bytes(WHOLE[:cut])
    specs = [ModelSpec(f"cut-{cut}", tmp_path / f"cut-{cut}.gguf", threads=1) for cut in CUTS]
    room = Memory(1 << 40) if limited else None
    engine = LlamaEngine([spec, *specs], room=room)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        await withdrawn(engine, [each.name for each in specs])
        nursery.cancel_scope.cancel()


async def test_forged_files(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.engine.restart.RESTART_DELAYS_S", (0.0,))
    specs = []
    for index, forge in enumerate(FORGERIES):
        path = tmp_path / f"forged-{index}.gguf"
        path.write_bytes(forge(WHOLE))
        specs.append(ModelSpec(f"forged-{index}", path, threads=1))
    async with running(spec, *specs) as engine:
        await withdrawn(engine, [each.name for each in specs])
        # The one that llama.cpp answers with an abort took its own process along, three times.
        aborted = engine.status()[1 + [forge.__name__ for forge in FORGERIES].index("llama.block_count=0")]
        assert "GGML_ASSERT" in aborted.reason
