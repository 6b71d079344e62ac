"""The requester's own meter: vocab-only workers, which need a GGUF's metadata and vocabulary but no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from ryvion_node.engine.files import FileState, file_state
from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.interface import NO_TOOLS, EngineError, ToolUse, Turn
from ryvion_node.engine.jobs import count, plain_text, wire_tools, wire_turns, worker_error
from ryvion_node.engine.wire import CountPrompt, CountTexts, Ready, Start
from ryvion_node.engine.worker_process import Broken, End, Timing, WorkerProcess


class VocabCounter:
    """Implements TokenCounter. A worker starts with the first count of its model, and anew after a death."""

    def __init__(self, paths: Mapping[bytes, Path], timing: Timing | None = None) -> None:
        """Digest of a model's GGUF -> that file, or a header cut from it."""
        timing = timing or Timing()
        self._meters = {digest: _Meter(path, timing) for digest, path in paths.items()}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Owns the workers; counts work while this runs."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def knows(self, digest: bytes) -> bool:
        return digest in self._meters

    async def count_prompt(self, digest: bytes, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        wired, wired_tools = wire_turns(turns), wire_tools(tools)
        return await self._count(digest, lambda number: CountPrompt(number, wired, wired_tools))

    async def count_texts(self, digest: bytes, texts: Sequence[str]) -> int:
        plain = tuple(map(plain_text, texts))
        return await self._count(digest, lambda number: CountTexts(number, plain, False))

    async def count_embedded(self, digest: bytes, texts: Sequence[str]) -> int:
        plain = tuple(map(plain_text, texts))
        return await self._count(digest, lambda number: CountTexts(number, plain, True))

    async def _count(self, digest: bytes, make: Callable[[int], CountPrompt | CountTexts]) -> int:
        if self._nursery is None:
            raise RuntimeError("run() is not running")
        if (meter := self._meters.get(digest)) is None:
            raise EngineError("model_unknown", f"the tokenizer of model {digest.hex()[:12]} is not at hand")
        return await count(await meter.worker(self._nursery), make, meter.path.name)


class _Meter:
    """One vocabulary and, when needed, its worker."""

    def __init__(self, path: Path, timing: Timing) -> None:
        self.path = path
        self._timing = timing
        self._worker: WorkerProcess | None = None
        self._settled = trio.Event()
        self._end: End | None = None
        self._broken_state: FileState | None = None

    async def worker(self, nursery: trio.Nursery) -> WorkerProcess:
        """A worker that is ready. Raises EngineError."""
        if self._worker is None:
            self._refuse_known_bad_file()
            self._worker = WorkerProcess(self._start(), self._timing)
            self._settled = trio.Event()
            nursery.start_soon(self._run, self._worker)
        worker = self._worker
        await self._settled.wait()
        if self._end is not None and self._worker is not worker:
            raise worker_error(self.path.name, self._end)
        return worker

    async def _run(self, worker: WorkerProcess) -> None:
        self._end = None
        try:
            self._end = await worker.run(self._became_ready)
        finally:
            self._worker = None
            self._settled.set()
        if isinstance(self._end, Broken):
            self._broken_state = _state(self.path)

    def _became_ready(self, _ready: Ready) -> None:
        self._settled.set()

    def _refuse_known_bad_file(self) -> None:
        """A damaged file is not tried again until it changes."""
        if self._broken_state is not None and isinstance(self._end, Broken) and self._broken_state == _state(self.path):
            raise worker_error(self.path.name, self._end)

    def _start(self) -> Start:
        return Start(
            path=str(self.path.resolve()),
            expected_digest=b"",
            known_digest=b"",
            context_tokens=0,
            slots=1,
            gpu_layers=0,
            threads=1,
            vocab_only=True,
            template="",
        )


def _state(path: Path) -> FileState | None:
    try:
        return file_state(path)
    except GgufError:
        return None
