"""Estimates of memory against what llama.cpp really takes, and who has to go when it is short."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import TERNARY, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_files import entry, text

from ryvion_node.engine.devices import Device, DeviceList
from ryvion_node.engine.free_memory import free_main_memory, room_for
from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.gguf_shape import LayerShape, ModelShape, read_shape
from ryvion_node.engine.memory import Memory, address_space_bytes, context_of, estimate, shown
from ryvion_node.engine.room import Resident, make_room
from ryvion_node.engine.worker_process import worker_environment

MIB = 1024 * 1024

ALLOCATE = """
import ctypes, sys
from pathlib import Path
from ryvion_node.engine.worker import llama
path, context_tokens, slots = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
log, said = llama.Log(), []
listener = llama._lib.llama_log_callback(lambda level, text, _: said.append(text.decode()))
llama._lib.llama_log_set(listener, ctypes.c_void_p(0))
model = llama.Model(path, vocab_only=False, gpu_layers=0, on_progress=lambda share: None, log=log)
rows = min(256, context_tokens * slots)
llama.Context(model, context_tokens=context_tokens, slots=slots, batch_tokens=rows, threads=1, log=log)
print("".join(said))
"""


def allocated(path: Path, context_tokens: int, slots: int) -> tuple[float, float, float]:
    """MiB of weights, cache and compute buffers as llama.cpp itself reports them."""
    command = [sys.executable, "-c", ALLOCATE, str(path), str(context_tokens), str(slots)]
    said = subprocess.run(command, env=worker_environment(), capture_output=True, text=True, check=True).stdout

    def total(kind: str) -> float:
        return sum(float(size) for size in re.findall(rf"{kind} buffer size = +([0-9.]+) MiB", said))

    return total("model"), total("KV"), total("compute")


@pytest.mark.parametrize(("context_tokens", "slots"), [(1024, 4), (300, 1), (512, 16)])
@pytest.mark.parametrize("name", ["tiny", "ternary", "random"])
def test_estimates_are_what_llama_cpp_takes(name: str, small_model: Path, context_tokens: int, slots: int) -> None:
    path = {"tiny": TINY, "ternary": TERNARY, "random": small_model}[name]
    weights, cache, compute = allocated(path, context_tokens, slots)
    guess = estimate(read_shape(path), slots=slots, context_tokens=context_tokens)
    assert guess.weights_bytes / MIB == pytest.approx(weights, abs=0.02)
    assert guess.cache_bytes / MIB == pytest.approx(cache, abs=0.02)
    # Never too little, never half as much again and a MiB.
    assert compute <= guess.compute_bytes / MIB + 0.01 <= 1.5 * compute + 1.0


SHAPE = ModelShape(
    layers=(LayerShape(100 * MIB, 1024, 0),) * 4,
    input_bytes=50 * MIB,
    output_bytes=60 * MIB,
    shares_embedding=False,
    context_tokens=4096,
    vocabulary=32_000,
    width=1024,
    feed_forward=4096,
    pooling=0,
    parts=0,
)


def test_layers_on_a_gpu_take_its_memory() -> None:
    whole = estimate(SHAPE, slots=2, context_tokens=1024)
    assert whole.need == Memory(whole.total_bytes)
    assert whole.cache_bytes == 4 * 1024 * 2 * 2 * 1024
    everything = estimate(SHAPE, slots=2, context_tokens=1024, gpu_layers=-1, has_gpu=True)
    assert everything.need.host_bytes == SHAPE.input_bytes
    # The last two of five: the output and one layer.
    some = estimate(SHAPE, slots=2, context_tokens=1024, gpu_layers=2, has_gpu=True)
    assert some.gpu_bytes == SHAPE.output_bytes + 100 * MIB + whole.cache_bytes // 4 + some.compute_bytes
    none = estimate(SHAPE, slots=2, context_tokens=1024, gpu_layers=0, has_gpu=True)
    assert none.gpu_bytes == 0
    shared = replace(SHAPE, shares_embedding=True, output_bytes=SHAPE.input_bytes)
    assert estimate(shared, slots=2, context_tokens=1024).weights_bytes == 450 * MIB
    assert estimate(shared, slots=2, context_tokens=1024, gpu_layers=-1, has_gpu=True).weights_bytes == 500 * MIB


def test_recurrent_layers_keep_a_state_and_embedding_models_little() -> None:
    recurrent = replace(SHAPE, layers=(LayerShape(MIB, 0, 5000),) * 2)
    assert estimate(recurrent, slots=3, context_tokens=4096).cache_bytes == 2 * 3 * 5000
    pooled = replace(SHAPE, pooling=1)
    assert context_of(pooled, None) == 2048
    assert context_of(SHAPE, None) == 4096
    assert context_of(SHAPE, 100) == 100
    assert (
        estimate(pooled, slots=4, context_tokens=512).cache_bytes
        < estimate(SHAPE, slots=4, context_tokens=512).cache_bytes
    )


def test_the_limit_of_a_worker_is_above_its_estimate() -> None:
    taken = estimate(SHAPE, slots=4, context_tokens=4096)
    assert address_space_bytes(taken, SHAPE, threads=2) > taken.total_bytes + 1024 * MIB


def number(key: str, value: int) -> bytes:
    return entry(key, 4, struct.pack("<I", value))


def numbers(key: str, *values: int) -> bytes:
    return entry(key, 9, struct.pack("<IQ", 4, len(values)) + struct.pack(f"<{len(values)}I", *values))


def gguf(entries: list[bytes], tensors: dict[str, int]) -> bytes:
    """A file with these entries and tensors of these sizes."""
    infos, offset = b"", 0
    for name, size in tensors.items():
        infos += text(name) + struct.pack("<IQIQ", 1, size, 0, offset)
        offset += size
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + infos
    return head + bytes(-len(head) % 32 + offset)


HYBRID = [
    entry("general.architecture", 8, text("jamba")),
    number("jamba.block_count", 3),
    number("jamba.embedding_length", 512),
    number("jamba.attention.head_count", 8),
    numbers("jamba.attention.head_count_kv", 0, 2, 0),
    number("jamba.attention.key_length", 96),
    numbers("jamba.feed_forward_length", 700, 900, 800),
    number("jamba.ssm.inner_size", 1024),
    number("jamba.ssm.state_size", 16),
    number("jamba.ssm.conv_kernel", 4),
    number("split.count", 2),
    entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
]
TENSORS = {"token_embd.weight": 64, "blk.0.w": 96, "blk.1.w": 32, "blk.2.w": 32, "output_norm.weight": 32}


def test_shapes_are_read_layer_by_layer(tmp_path: Path) -> None:
    path = tmp_path / "hybrid.gguf"
    path.write_bytes(gguf(HYBRID, TENSORS))
    shape = read_shape(path)
    state = 4 * (1024 * 16 + 3 * 1024)
    assert shape.layers == (LayerShape(96, 0, state), LayerShape(32, 2 * (96 + 64), 0), LayerShape(32, 0, state))
    assert (shape.input_bytes, shape.output_bytes, shape.shares_embedding) == (64, 96, True)
    assert (shape.vocabulary, shape.width, shape.feed_forward, shape.parts) == (2, 512, 900, 2)
    assert shape.weights_bytes == 256


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([*HYBRID[:1], number("jamba.block_count", 2**31)], "layers"),
        ([*HYBRID[:2], numbers("jamba.attention.head_count_kv", 1)], "names 1 layers"),
        ([*HYBRID[:2], entry("jamba.embedding_length", 10, struct.pack("<Q", 2**63))], "a size of"),
    ],
)
def test_forged_shapes_are_refused(tmp_path: Path, entries: list[bytes], reason: str) -> None:
    path = tmp_path / "forged.gguf"
    path.write_bytes(gguf(entries, TENSORS))
    with pytest.raises(GgufError, match=reason):
        read_shape(path)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, len(gguf(HYBRID, TENSORS)) - 1))
def test_any_bytes_give_a_shape_or_an_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    whole = gguf(HYBRID, TENSORS)
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        shape = read_shape(path)
    except GgufError:
        return
    assert estimate(shape, slots=4, context_tokens=512).total_bytes >= 0


residents = st.lists(
    st.builds(
        Resident,
        name=st.uuids().map(str),
        need=st.builds(Memory, st.integers(0, 50), st.integers(0, 50)),
        idle=st.booleans(),
        used_at=st.floats(0, 100),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(st.builds(Memory, st.integers(0, 60), st.integers(0, 60)), residents)
def test_only_as_many_idle_models_go_as_must(need: Memory, loaded: list[Resident]) -> None:
    room = Memory(100, 100)
    leaving = make_room(need, room, loaded)
    if leaving is None:
        stay = sum((one.need for one in loaded if not one.idle), need)
        assert not stay.fits(room)
        return
    gone = [one for one in loaded if one.name in leaving]
    assert all(one.idle for one in gone)
    assert sum((one.need for one in loaded if one not in gone), need).fits(room)
    assert all(
        one.used_at >= max((g.used_at for g in gone), default=0) for one in loaded if one.idle and one not in gone
    )
    if gone:
        kept = [one for one in loaded if one not in gone]
        last = max(gone, key=lambda one: (one.used_at, leaving.index(one.name)))
        assert not sum((one.need for one in kept), need + last.need).fits(room)


def device(kind: str, free: int) -> Device:
    return Device("X", "x", kind, 2 * free, free)  # type: ignore[arg-type]


def test_room_is_most_of_what_is_free_or_the_owners_budget() -> None:
    plain, cards = DeviceList((device("cpu", 999),)), DeviceList((device("cpu", 999), device("gpu", 50), device("gpu", 30), device("igpu", 70)))  # fmt: skip
    assert room_for(plain, None, 100) == Memory(80)
    assert room_for(plain, 500, 100) == Memory(500)
    assert room_for(cards, None, 100) == Memory(80, 64)
    assert room_for(cards, 500, 100) == Memory(80, 500)
    assert room_for(DeviceList((device("igpu", 70),)), None, 100) == Memory(80, 56)


def test_free_memory_is_within_the_containers_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n")
    assert free_main_memory(meminfo, tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert free_main_memory(meminfo, tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert free_main_memory(meminfo, tmp_path) == 2900
    assert free_main_memory(tmp_path / "none", tmp_path / "none") > MIB


def test_sizes_are_shown_for_people() -> None:
    assert shown(3 * 1024 * MIB) == "3.0 GiB"
    assert shown(5 * MIB // 2) == "2.5 MiB"
