"""Any sequence of writes, repeated and contradictory ones and restarts among them, leaves the real ledger as the model."""

from __future__ import annotations

import contextvars
import queue
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
import trio_asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ryvion_node.ledger.errors import LedgerError
from ryvion_node.ledger.fake import FakeLedger
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.records import Evidence, Side
from ryvion_node.ledger.spending import HOUR_MS, UNLIMITED, Allowance
from ryvion_node.ledger.store import open_ledger
from tests.node.ledger.ledger_samples import EXECUTOR, REQUESTER, begun, digest, job_id, settlement, sold

T = TypeVar("T")
NUMBERS = st.integers(1, 2)
"""Few jobs, so that most steps meet one that is there."""
ALLOWANCES = st.builds(Allowance, *(st.sampled_from([None, 0, 1_000, 1_700]) for _ in range(3)))
SIDES: st.SearchStrategy[Side] = st.sampled_from(["bought", "sold"])


class OpenLedger:
    """A real ledger, open in a trio program on a thread of its own, driven from outside."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._path, self._clock = path, clock
        self._ready: queue.Queue[tuple[Ledger, contextvars.Context, trio.lowlevel.TrioToken, trio.Event]] = (
            queue.Queue()
        )
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self.ledger, self._context, self._token, self._stop = self._ready.get(timeout=20)

    def call(self, write: Callable[[Ledger], Awaitable[T]]) -> T:
        """Run one call to its end."""

        async def run() -> T:
            return await write(self.ledger)

        return self._context.run(lambda: trio.from_thread.run(run, trio_token=self._token))

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(timeout=20)

    async def _main(self) -> None:
        async with trio_asyncio.open_loop(), open_ledger(self._path, clock=self._clock) as ledger:
            stop = trio.Event()
            self._ready.put((ledger, contextvars.copy_context(), trio.lowlevel.current_trio_token(), stop))
            await stop.wait()


class LedgerMachine(RuleBasedStateMachine):
    """Runs every step on the real ledger and on the fake, which is the plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.folder = Path(tempfile.mkdtemp())
        self.model = FakeLedger(clock=lambda: self.now)
        self.real = self._open()

    def _open(self) -> OpenLedger:
        return OpenLedger(self.folder / "ledger.sqlite3", lambda: self.now)

    def both(self, write: Callable[[Ledger], Awaitable[object]]) -> None:
        """The same result, or the same kind of refusal."""
        self.now += 1
        expected = outcome(lambda: run_now(write(self.model)))
        assert outcome(lambda: self.real.call(write)) == expected

    @rule(number=NUMBERS, side=SIDES, allowance=ALLOWANCES)
    def begin(self, number: int, side: Side, allowance: Allowance = UNLIMITED) -> None:
        job = begun(number, side, completion_id=f"completion {number % 2}", allowance=allowance)
        self.both(lambda ledger: ledger.begin_job(job))

    @rule(hours=st.sampled_from([0.5, 1, 24]))
    def time_passes(self, hours: float) -> None:
        self.now += round(hours * HOUR_MS)

    @rule(number=NUMBERS, previous=st.sampled_from([None, None, None, 1]))
    def finish(self, number: int, previous: int | None) -> None:
        async def write(ledger: Ledger) -> object:
            last = await ledger.last_envelope_hash(EXECUTOR, REQUESTER)
            return await ledger.finish_sold(
                sold(number, previous=last if previous is None else digest(f"envelope {previous}"))
            )

        self.both(write)

    @rule(number=NUMBERS)
    def deliver(self, number: int) -> None:
        """Two steps at once, so that what may follow a delivery is met often."""
        self.begin(number, "sold")
        self.finish(number, None)

    @rule(number=NUMBERS, accepted=st.booleans())
    def accept(self, number: int, accepted: bool) -> None:
        self.both(
            lambda ledger: ledger.record_acceptance(
                job_id(number),
                f"verdict {accepted}".encode(),
                accepted=accepted,
                reason="" if accepted else "signature",
            )
        )

    @rule(number=NUMBERS, accepted=st.booleans())
    def settle(self, number: int, accepted: bool) -> None:
        self.both(lambda ledger: ledger.settle_bought(settlement(number, accepted=accepted)))

    @rule(number=NUMBERS, side=SIDES)
    def fail(self, number: int, side: Side) -> None:
        self.both(
            lambda ledger: ledger.fail_job(
                job_id(number), side, "node_failed", "it broke", evidence=(Evidence("error", b"error"),)
            )
        )

    @rule()
    def crash_and_start_again(self) -> None:
        self.real.close()
        self.real = self._open()
        self.both(lambda ledger: ledger.abandon_unfinished())

    @invariant()
    def they_agree(self) -> None:
        assert self.real.call(everything) == run_now(everything(self.model))

    def teardown(self) -> None:
        self.real.close()
        shutil.rmtree(self.folder)


async def everything(ledger: Ledger) -> list[object]:
    """All that can be read. Positions are left out: a refused write may leave a gap."""
    shown: list[object] = [await ledger.totals(), await ledger.last_envelope_hash(EXECUTOR, REQUESTER)]
    shown += [await ledger.unfinished_jobs("bought"), await ledger.unfinished_jobs("sold")]
    shown += [await ledger.by_completion_id("completion 0")]
    shown += [await ledger.spending("key-1"), await ledger.spending("")]
    shown += [await ledger.room_returns_ms("key-1", microcredits) for microcredits in (1, 700, 701)]
    shown += [(record.at_ms, record.job) for record in await ledger.receipts(100)]
    for number in (1, 2):
        detail = await ledger.receipt(sold(number).receipt_cid)
        shown.append(detail and (detail.record.job, detail.evidence, detail.checks))
        for side in ("bought", "sold"):
            shown.append(await ledger.evidence(job_id(number), side))
    return shown


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except LedgerError as exc:
        return type(exc)


def run_now(work: Awaitable[T]) -> T:
    """The result of an awaitable that never waits, as the fake's are."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the fake waited")


LedgerMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = LedgerMachine.TestCase
