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
from ryvion_node.engine.worker.landlock import version
from ryvion_node.engine.worker_process import worker_environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
walls = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")

INSIDE = """
import os, socket, sys
from pathlib import Path
from ryvion_node.engine.worker.isolation import confine, isolate, limit_memory
isolate(os.getppid())
model, key = sys.argv[1:3]
if sys.argv[3] != "isolated":
    confine([Path(model)], has_gpu=sys.argv[3] == "gpu")
try:
    print("done", eval(sys.argv[4]))
except BaseException as exc:
    print(type(exc).__name__, getattr(exc, "errno", ""))
"""


def inside(attempt: str, *, after: str = "isolated", key: Path | None = None) -> str:
    """What becomes of an expression inside: `done ...`, or the name and number of the error."""
    command = [sys.executable, "-c", INSIDE, str(TINY), str(key or TINY), after, attempt]
    environment = worker_environment()
    answer = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=30, check=False)
    assert answer.stdout, answer.stderr
    return answer.stdout.strip()


@linux
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"])
def test_there_is_no_network(family: str) -> None:
    assert inside(f"socket.socket(socket.{family}, socket.SOCK_DGRAM)") == "PermissionError 1"


@linux
def test_local_sockets_are_for_gpu_drivers_only() -> None:
    attempt = "socket.socket(socket.AF_UNIX).family"
    assert inside(attempt).startswith("done")
    assert inside(attempt, after="gpu").startswith("done")
    assert inside(attempt, after="cpu") == "PermissionError 1"


@linux
@pytest.mark.parametrize(
    "attempt",
    [
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "__import__('subprocess').run(['/bin/true'])",
    ],
)
def test_it_starts_no_process(attempt: str) -> None:
    assert inside(attempt) == "PermissionError 1"


@linux
def test_threads_still_start() -> None:
    assert inside("[t := __import__('threading').Thread(target=int), t.start(), t.join()][1:]") == "done [None, None]"


@linux
@walls
@pytest.mark.parametrize("after", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "attempt",
    [
        "open(key).read()",
        "open(key, 'a')",
        "os.unlink(key)",
        "os.listdir(os.path.dirname(key))",
        "open(os.path.dirname(key) + '/new', 'w')",
        "os.truncate(model, 0)",
        "os.chmod(key, 0o644) or open(key).read()",
    ],
)
def test_the_nodes_files_are_out_of_reach(tmp_path: Path, after: str, attempt: str) -> None:
    key = tmp_path / "home" / "identity.key"
    key.parent.mkdir()
    key.write_text("secret")
    assert inside(attempt, after=after, key=key) == "PermissionError 13"
    assert key.read_text() == "secret"


@linux
@walls
@pytest.mark.parametrize(
    "attempt",
    ["open(node + 'environ', 'rb')", "open(node + 'mem', 'rb')", "open(node + 'maps')", "open(node + 'fd/0')"],
)
def test_the_nodes_process_is_out_of_reach(attempt: str) -> None:
    attempt = attempt.replace("node", "'/proc/%d/' % os.getppid()")
    assert inside(f"{attempt}.read(1)", after="cpu") == "PermissionError 13"


@linux
@walls
@pytest.mark.skipif(version() < 6, reason="signals to others are kept back from version 6 on")
def test_it_signals_nobody() -> None:
    assert inside("os.kill(os.getppid(), 0)", after="cpu") == "PermissionError 1"


@linux
@walls
def test_what_it_needs_is_in_reach() -> None:
    assert inside("open(model, 'rb').read(4)", after="cpu") == "done b'GGUF'"
    assert inside("__import__('email.mime.text').__name__", after="cpu") == "done email"
    assert inside("open('/dev/null', 'w').write('x')", after="cpu") == "done 1"


def test_memory_beyond_the_limit_is_an_error_of_its_own() -> None:
    assert inside("limit_memory(1 << 30) or len(bytearray(2 << 30))") == "MemoryError"
    assert inside("limit_memory(1 << 70)") == "done None"


def test_limits_only_fall() -> None:
    resource_limits = f"__import__('resource').getrlimit({resource.RLIMIT_NOFILE})"
    assert inside(f"{resource_limits}[1] <= 1024") == "done True"
    assert inside(f"__import__('resource').setrlimit({resource.RLIMIT_NOFILE}, (4096, 4096))").startswith("ValueError")


LITTLE_MEMORY = """
import sys
sys.argv = ["worker", "--parent", sys.argv[1]]
from ryvion_node.engine.worker import isolation, loading
from ryvion_node.engine.worker.__main__ import main
def limit(_bytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    isolation.limit_memory(4096 * pages + (24 << 20))
loading.limit_memory = limit
main()
"""


@linux
async def test_a_model_that_outgrows_its_limit_fails_alone(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the estimate were far too small: the owner reads what to change, the node and its other models go on."""
    real = worker_process.worker_command
    commands = [[sys.executable, "-c", LITTLE_MEMORY, str(os.getpid())]]
    monkeypatch.setattr(worker_process, "worker_command", lambda: commands.pop() if commands else real())
    large = replace(spec, name="large", context_tokens=2048, slots=64)
    async with running(large, spec) as engine:
        status = engine.status()[0]
        assert status.state == "broken"
        assert "no room for 64 slots" in status.reason
        assert (await failure(engine, replace(REQUEST, model="large"))).code == "model_broken"
        assert end_of(await collect(engine, REQUEST))
