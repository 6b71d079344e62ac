"""The decode loop and grammars that are not ready in time: they hold up their own job only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoder_bench import SLOTS, Bench, open_bench

from ryvion_node.engine import constants as limits
from ryvion_node.engine.constants import SCORE_ROWS
from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.wire import Cancel, JobFailed, JobPiece, Scored, Speed
from ryvion_node.engine.worker import decoder as decoder_module
from ryvion_node.engine.worker.choosing import Chooser, MaskFailed
from ryvion_node.engine.worker.job import Job
from ryvion_node.engine.worker.scoring import Scoring, rows_at_once

GREEDY = Sampling(0.0)


class Slow:
    """A grammar that allows everything, but only when it is let."""

    def __init__(self, size: int) -> None:
        self.open = False
        self.taken: list[int] = []
        self.waits: list[float] = []
        self.fails_after: int | None = None
        self._mask = np.ones(size, bool)

    def ready(self, within_s: float) -> bool:
        self.waits.append(within_s)
        return self.open

    def allowed(self) -> np.ndarray:
        assert self.open
        if self.fails_after is not None and len(self.taken) >= self.fails_after:
            raise MaskFailed("lost")
        return self._mask

    def take(self, token: int) -> None:
        self.taken.append(token)


class Clock:
    """In the place of `time`; goes on when it is let."""

    def __init__(self) -> None:
        self.now_s = 1.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def bench(small_model: Path) -> Bench:
    return open_bench(small_model)


def masked(bench: Bench, content: str, *, max_tokens: int = 24) -> tuple[Job, Slow]:
    job, mask = bench.job(content, max_tokens=max_tokens), Slow(bench.model.vocabulary.size)
    job.chooser = Chooser(bench.model.vocabulary, GREEDY, job.prompt, mask)
    return job, mask


def scoring(bench: Bench, prompt: list[int], claimed: list[int], chooser: Chooser) -> Job:
    job = bench.job("unused")
    job.prompt = [*prompt, *claimed[:-1]]
    job.chooser, job.scoring = chooser, Scoring(chooser, claimed, len(prompt))
    return job


def test_a_late_grammar_changes_nothing_but_the_time(bench: Bench) -> None:
    alone = bench.finish(bench.decoder(), bench.job("Say hello."))[0]
    job, mask = masked(bench, "Say hello.")
    decoder = bench.decoder()
    decoder.post(job)
    for turn in range(400):
        mask.open = turn % 3 == 0
        decoder.turn()
        if job.number in bench.ended:
            break
    assert bench.tokens(job) == alone
    assert tuple(mask.taken) == alone


def test_others_go_on_while_a_grammar_is_late(bench: Bench) -> None:
    late, mask = masked(bench, "Say hello.")
    others = [bench.job("What are you?") for _ in range(SLOTS - 1)]
    decoder = bench.decoder()
    decoder.post(late)
    bench.finish(decoder, *others)
    assert all(len(bench.tokens(job)) == 24 for job in others)
    assert bench.tokens(late) == ()
    # Waited for once, when it was first late.
    assert sum(seconds > 0 for seconds in mask.waits) <= 2
    mask.open = True
    assert len(bench.run(decoder, late)[0]) == 24


def test_a_late_grammar_is_no_slower_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIFT_STEPS", 3)
    monkeypatch.setattr(decoder_module, "time", clock := Clock())
    job, mask = masked(bench, "Say hello.")
    decoder = bench.decoder({1: 0.01, SLOTS: 0.01})
    decoder.post(job)
    while job.number not in bench.ended:
        mask.open = bool(job.waiting)
        clock.now_s += 10.0 if mask.open else 0.0
        decoder.turn()
    assert clock.now_s > limits.DRIFT_SAY_EVERY_S
    assert all(said.millitokens_per_s >= 100_000 for said in bench.sent if isinstance(said, Speed))


def test_a_job_whose_grammar_never_comes_can_be_cancelled(bench: Bench) -> None:
    late, _ = masked(bench, "Say hello.")
    decoder = bench.decoder()
    decoder.post(late)
    decoder.turn()
    decoder.turn()
    decoder.post(Cancel(late.number))
    assert len(bench.finish(decoder, *(bench.job("What are you?") for _ in range(SLOTS)))) == SLOTS
    assert bench.tokens(late) == ()


def test_a_grammar_that_fails_ends_its_job_with_a_reason(bench: Bench) -> None:
    """R-05-16"""
    job, mask = masked(bench, "Say hello.")
    mask.open, mask.fails_after = True, 5
    other = bench.job("What are you?")
    decoder = bench.decoder()
    decoder.post(job)
    bench.finish(decoder, other)
    assert [said for said in bench.sent if isinstance(said, JobFailed)] == [
        JobFailed(job.number, "grammar_invalid", "lost")
    ]
    assert len(bench.tokens(job)) == 5
    assert len(bench.finish(decoder, *(bench.job("Again.") for _ in range(SLOTS)))) == SLOTS


def test_scores_come_in_chunks_between_steps(bench: Bench) -> None:
    made = bench.job("Say hello.", max_tokens=100)
    (claimed,) = bench.finish(bench.decoder(), made)
    chooser = Chooser(bench.model.vocabulary, GREEDY, made.prompt)
    decoder, other = bench.decoder(), bench.job("What are you?", max_tokens=60)
    judged = scoring(bench, made.prompt, list(claimed), chooser)
    decoder.post(other)
    decoder.post(judged)
    bench.run(decoder, other)
    (scored,) = [said for said in bench.sent if isinstance(said, Scored)]
    assert scored.job == judged.number
    assert len(scored.scores) == len(claimed)
    assert sum(min(margin, 1.0) for margin, _, _ in scored.scores) / len(claimed) < 0.01
    rows = [count for sequence, at, count in bench.context.rows if count > 1 and at >= len(made.prompt)]
    assert max(rows) <= SCORE_ROWS
    # The other job had its tokens meanwhile.
    before = bench.sent[: bench.sent.index(scored)]
    assert sum(isinstance(said, JobPiece) and said.job == other.number for said in before) >= len(claimed) // SCORE_ROWS


def test_scores_wait_for_a_late_grammar(bench: Bench) -> None:
    made = bench.job("Say hello.")
    (claimed,) = bench.finish(bench.decoder(), made)
    mask = Slow(bench.model.vocabulary.size)
    judged = scoring(bench, made.prompt, list(claimed), Chooser(bench.model.vocabulary, GREEDY, made.prompt, mask))
    decoder = bench.decoder()
    decoder.post(judged)
    for turn in range(600):
        mask.open = turn % 4 == 0
        decoder.turn()
        if any(isinstance(said, Scored) for said in bench.sent):
            break
    (scored,) = [said for said in bench.sent if isinstance(said, Scored)]
    assert all(margin < 0.5 for margin, _, _ in scored.scores)
    assert tuple(mask.taken) == claimed


def test_fewer_rows_of_a_large_vocabulary() -> None:
    assert rows_at_once(1024) == SCORE_ROWS
    assert rows_at_once(512 * 1024) == 8
    assert rows_at_once(2**30) == 1
