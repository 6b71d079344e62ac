"""What the worker cannot do, tried from inside a process that isolated itself as the worker does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import REQUEST, TINY, collect, end_of, failure, running

from ryvion_node.engine import worker_process
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.worker_process import worker_environment
from ryvion_node.walls.landlock import version

linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
walls = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")

INSIDE = """
import os, socket, sys
from pathlib import Path
from ryvion_node.walls.isolation import confine, isolate, limit_memory
isolate(os.getppid(), walls=True, open_files=1024)
model, key, after, *attempts = sys.argv[1:]
node = f"/proc/{os.getppid()}/"
if after != "isolated":
    confine([Path(model)], has_gpu=after == "gpu")
for attempt in attempts:
    try:
        said = f"done {eval(attempt)}"
    except BaseException as exc:
        said = f"{type(exc).__name__} {getattr(exc, 'errno', '')}".strip()
    print(said, flush=True)
"""


def inside(*attempts: str, after: str = "isolated", key: Path | None = None) -> list[str]:
    """What becomes of expressions inside: each `done ...`, or the name and number of its error."""
    command = [sys.executable, "-c", INSIDE, str(TINY), str(key or TINY), after, *attempts]
    environment = worker_environment()
    answer = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    said = answer.stdout.splitlines()
    assert len(said) == len(attempts), answer.stderr
    return said


@linux
def test_there_is_no_network() -> None:
    families = ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"]
    attempts = [f"socket.socket(socket.{family}, socket.SOCK_DGRAM)" for family in families]
    attempts.append("socket.create_connection(('127.0.0.1', 9))")
    assert set(inside(*attempts)) == {"PermissionError 1"}


@linux
def test_local_sockets_are_for_gpu_drivers_only() -> None:
    attempt = "socket.socket(socket.AF_UNIX).fileno() > 0"
    assert inside(attempt) == inside(attempt, after="gpu") == ["done True"]
    assert inside(attempt, after="cpu") == ["PermissionError 1"]


@linux
def test_it_starts_threads_but_no_process() -> None:
    attempts = [
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "__import__('subprocess').run(['/bin/true'])",
    ]
    thread = "[t := __import__('threading').Thread(target=int), t.start(), t.join()][1:]"
    assert inside(*attempts, thread) == ["PermissionError 1"] * len(attempts) + ["done [None, None]"]


@linux
@walls
@pytest.mark.parametrize("after", ["cpu", "gpu"])
def test_the_nodes_files_are_out_of_reach(tmp_path: Path, after: str) -> None:
    key = tmp_path / "home" / "identity.key"
    key.parent.mkdir()
    key.write_text("secret")
    attempts = [
        "open(key).read()",
        "open(key, 'a')",
        "os.unlink(key)",
        "os.listdir(os.path.dirname(key))",
        "open(os.path.dirname(key) + '/new', 'w')",
        "os.truncate(model, 0)",
        "os.chmod(key, 0o644) or open(key).read()",
        "os.symlink(key, model + '.link')",
    ]
    assert set(inside(*attempts, after=after, key=key)) == {"PermissionError 13"}
    assert key.read_text() == "secret"


@linux
@walls
def test_the_nodes_process_is_out_of_reach() -> None:
    attempts = [f"open(node + {name!r}, 'rb').read(1)" for name in ("environ", "mem", "maps", "fd/0")]
    assert set(inside(*attempts, after="cpu")) == {"PermissionError 13"}


@linux
@walls
@pytest.mark.skipif(version() < 6, reason="signals to others are kept back from version 6 on")
def test_it_signals_nobody() -> None:
    assert inside("os.kill(os.getppid(), 0)", after="cpu") == ["PermissionError 1"]


@linux
@walls
def test_what_it_needs_is_in_reach() -> None:
    attempts = [
        "open(model, 'rb').read(4)",
        "__import__('email.mime.text').__name__",
        "open('/dev/null', 'w').write('x')",
        "len(open('/proc/self/status').read()) > 0",
    ]
    assert inside(*attempts, after="cpu") == ["done b'GGUF'", "done email", "done 1", "done True"]


def test_memory_beyond_the_limit_is_an_error_of_its_own() -> None:
    assert inside("limit_memory(1 << 70)", "limit_memory(1 << 30)", "len(bytearray(2 << 30))") == [
        "done None",
        "done None",
        "MemoryError",
    ]


def test_limits_only_fall() -> None:
    files = resource.RLIMIT_NOFILE
    said = inside(
        f"__import__('resource').getrlimit({files})[1] <= 1024",
        f"__import__('resource').setrlimit({files}, (4096, 4096))",
    )
    assert said == ["done True", "ValueError"]


LITTLE_MEMORY = """
import sys
sys.argv = ["worker", "--parent", sys.argv[1]]
from ryvion_node.engine.worker import loading
from ryvion_node.engine.worker.__main__ import main
from ryvion_node.walls import isolation
def limit(_bytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    isolation.limit_memory(4096 * pages + (24 << 20))
loading.limit_memory = limit
main()
"""


@linux
async def test_a_model_that_outgrows_its_limit_fails_alone(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the estimate were far too small: the owner reads what to change, the node and its other models go on."""
    large = replace(spec, name="large", context_tokens=2048, slots=64)
    async with running(spec) as sound:
        command = [sys.executable, "-c", LITTLE_MEMORY, str(os.getpid())]
        monkeypatch.setattr(worker_process, "worker_command", lambda: command)
        async with running(large) as engine:
            status = engine.status()[0]
            assert status.state == "broken"
            assert "no room for" in status.reason and "configure fewer or smaller" in status.reason
            assert (await failure(engine, replace(REQUEST, model="large"))).code == "model_broken"
            assert end_of(await collect(sound, REQUEST))


def _status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@linux
@pytest.mark.parametrize(("walled", "filters"), [(True, "2"), (False, "0")])
async def test_an_owner_can_take_the_walls_down_for_a_model(walled: bool, filters: str) -> None:
    async with running(ModelSpec("small", TINY, walls=walled)) as engine:
        assert end_of(await collect(engine, REQUEST)).reason == "stop"
        status = _status_of(engine.status()[0].worker_pid)
    assert f"Seccomp:\t{filters}\n" in status
    assert "NoNewPrivs:\t1\n" in status
