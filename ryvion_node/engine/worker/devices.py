"""Lists the devices llama.cpp was built for, through ggml's backend registry."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from llama_cpp import _ggml

# ggml-backend.h, enum ggml_backend_dev_type.
_KINDS: Final = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}


class _Capabilities(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_bool) for name in ("async_", "host_buffer", "buffer_from_host_ptr", "events", "mmap_support")
    ]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", _Capabilities),
    ]


def devices() -> list[dict[str, str | int]]:
    """One entry per device, fields as `engine/devices.py` reads them."""
    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_get_props.restype = None
    ggml.ggml_backend_dev_get_props.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Properties)]
    return [_device(ggml, index) for index in range(ggml.ggml_backend_dev_count())]


def has_gpu() -> bool:
    """Is there a device that layers can be put on?"""
    return any(device["kind"] in ("gpu", "igpu") for device in devices())


def _device(ggml: Any, index: int) -> dict[str, str | int]:
    properties = _Properties()
    ggml.ggml_backend_dev_get_props(ggml.ggml_backend_dev_get(index), ctypes.byref(properties))
    return {
        "backend": (properties.name or b"").decode("utf-8", "replace"),
        "name": (properties.description or b"").decode("utf-8", "replace"),
        "kind": _KINDS.get(properties.type, "accelerator"),
        "memory_bytes": properties.memory_total,
        "free_bytes": properties.memory_free,
    }
