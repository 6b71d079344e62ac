"""What an offer says of the machine: its best device, and how many of that kind (pure; spec 03)."""

from __future__ import annotations

from typing import Final

from ryvion_node.engine.devices import DeviceList
from ryvion_protocol.messages import Hardware

_BACKENDS: Final = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "metal": "metal", "mtl": "metal", "vulkan": "vulkan"}
"""How ggml's device names begin -> our word."""
MAX_LABEL_BYTES: Final = 64


def hardware_of(found: DeviceList) -> Hardware:
    """The device with most memory stands for all of its name; names of devices are cut to 64 bytes."""
    best = found.best
    alike = [device for device in found.devices if (device.kind, device.name) == (best.kind, best.name)]
    return Hardware(
        name=_cut(" ".join(best.name.split())),
        count=len(alike),
        memory_bytes=sum(device.memory_bytes for device in alike),
        backend=_backend(best.backend, best.kind),
    )


def _backend(ggml_name: str, kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    known = (word for start, word in _BACKENDS.items() if ggml_name.lower().startswith(start))
    return next(known, "other")


def _cut(text: str) -> str:
    return text.encode()[:MAX_LABEL_BYTES].decode("utf-8", "ignore").strip()
