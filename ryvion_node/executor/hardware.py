"""What an offer says of the machine: its best device, and how many of that kind (pure; spec 03)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ryvion_node.engine.devices import DeviceList
from ryvion_protocol.messages import Hardware
from ryvion_protocol.schema import as_label

_BACKENDS: Final = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "metal": "metal", "mtl": "metal", "vulkan": "vulkan"}
"""How ggml's device names begin -> our word."""

SCRIPTED_HARDWARE: Final = Hardware(name="scripted answers, for tests", count=1, memory_bytes=0, backend="other")
"""What a node says that computes nothing."""


def hardware_of(found: DeviceList) -> Hardware:
    """The device with most memory stands for all of its name; names of devices are cut to 64 bytes."""
    best = found.best
    alike = [device for device in found.devices if (device.kind, device.name) == (best.kind, best.name)]
    return Hardware(
        name=as_label(" ".join(best.name.split())),
        count=len(alike),
        memory_bytes=sum(device.memory_bytes for device in alike),
        backend=_backend(best.backend, best.kind),
    )


def remote_hardware(stated: Sequence[str]) -> Hardware:
    """What a node says whose models all run behind other engines: what its owner states, if anything."""
    name = next((text for text in stated if text), "another engine")
    return Hardware(name=as_label(" ".join(name.split())), count=1, memory_bytes=0, backend="remote")


def _backend(ggml_name: str, kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    known = (word for start, word in _BACKENDS.items() if ggml_name.lower().startswith(start))
    return next(known, "other")
