"""Doctor's look at the computer: Python, compiler, engine, devices, clock."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ryvion_node.cli.doctor.finding import Finding, fail, ok, warn

ENGINE_TIMEOUT_S = 60.0
"""Loading llama.cpp with a GPU backend the first time can take many seconds."""
COMPILE_TIMEOUT_S = 60.0
RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""A clock that shows an earlier time is wrong."""
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""
INSTALL_EXECUTOR = "to sell, or to count tokens exactly, install it: pip install 'ryvion-node[executor]'"
PROGRAM = "#include <optional>\nint main() { std::optional<int> zero{0}; return *zero; }\n"


def examine_machine(*, sells: bool) -> Iterator[Finding]:
    """Everything about the computer; `sells`: the configuration needs the engine."""
    yield _python()
    yield _compiler()
    yield from _engine(sells=sells)
    yield _clock()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return ok("python", f"{version} at {sys.executable}")


def _compiler() -> Finding:
    """Needed only to install or rebuild llama.cpp, so its absence is a warning."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    mend = "install one: apt-get install build-essential (Debian), dnf install gcc-c++ (Fedora), xcode-select --install (macOS)"
    if compiler is None:
        return warn("compiler", "no C++ compiler; llama.cpp cannot be built or rebuilt here", mend)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROGRAM)
        command = [compiler, "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
        try:
            built = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT_S, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            built = False
    if built:
        return ok("compiler", f"{compiler} builds C++17")
    return warn("compiler", f"{compiler} does not build a C++17 program", mend)


def _engine(*, sells: bool) -> Iterator[Finding]:
    """Load llama.cpp in a child process, as the node does: a crash of it must not be ours."""
    devices = probe_devices()
    if isinstance(devices, str):
        if sells:
            yield fail("engine", devices, INSTALL_EXECUTOR)
        else:
            yield warn("engine", f"{devices}; this node can buy, and bounds what it cannot count", INSTALL_EXECUTOR)
        return
    yield ok("engine", "llama.cpp loads in a child process")
    gpus = [device for device in devices if device["kind"] in ("gpu", "igpu")]
    for device in gpus:
        memory = f"{device['free_bytes'] / 2**30:.1f} of {device['memory_bytes'] / 2**30:.1f} GiB free"
        yield ok("gpu", f"{device['name']} ({device['backend']}), {memory}")
    if not gpus:
        yield ok("gpu", "none that llama.cpp was built for; models run on the CPU. " + _gpu_hint())
    yield _walls()


def _walls() -> Finding:
    """What keeps a model's process from the rest of the machine; a model file may be made to attack llama.cpp."""
    from ryvion_node.walls import landlock, seccomp

    calls, files = seccomp.is_offered(), landlock.version()
    if calls and files:
        return ok("walls", f"models run without network, other programs and your files (seccomp, Landlock {files})")
    if calls:
        open_to = "a model's process has no network, but can read your files"
    elif files:
        open_to = "a model's process cannot read your files, but can use the network"
    else:
        open_to = "a model's process can use the network and read your files"
    mend = "use Linux 5.13 or later with seccomp and Landlock (lsm=landlock,...), or serve only files that you trust"
    return warn("walls", open_to, mend)


def probe_devices() -> list[dict[str, Any]] | str:
    """llama.cpp's devices, or a sentence that says why it does not load."""
    command = [sys.executable, "-m", "ryvion_node.engine.worker", "--parent", str(os.getpid()), "--devices"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ENGINE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"llama.cpp did not load within {ENGINE_TIMEOUT_S:.0f} s"
    try:
        devices: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"its process ended with code {done.returncode}"
        return f"llama.cpp does not load ({reason})"
    return devices


def _gpu_hint() -> str:
    if shutil.which("nvidia-smi"):
        return "There is an NVIDIA GPU: rebuild with CMAKE_ARGS=-DGGML_CUDA=ON (needs the CUDA toolkit)"
    return "For a GPU, rebuild with CMAKE_ARGS=-DGGML_CUDA=ON, -DGGML_VULKAN=ON or -DGGML_METAL=ON"


def _clock() -> Finding:
    """Offers and jobs expire by the clock; peers refuse what is two minutes off."""
    mend = "let the system set the clock: timedatectl set-ntp true (Linux), Settings > Date & Time (macOS)"
    now = datetime.fromtimestamp(time.time(), UTC)
    shown = now.strftime("%Y-%m-%d %H:%M:%SZ")
    if now < RELEASED:
        return fail("clock", f"it shows {shown}, which is before this version was released", mend)
    if _kernel_says_unsynchronised():
        return warn(
            "clock", f"it shows {shown}, and nothing synchronises it; peers refuse what is two minutes off", mend
        )
    return ok("clock", shown)


def _kernel_says_unsynchronised() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    timex = ctypes.create_string_buffer(1024)  # larger than struct timex; all zero asks without setting anything
    state: int = ctypes.CDLL(None).adjtimex(timex)
    return state == TIME_ERROR
