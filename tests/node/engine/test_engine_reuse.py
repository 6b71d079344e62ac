"""What a job leaves in the cache serves its owner's next jobs, and nobody else's."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from decoder_bench import SLOTS, Bench, open_bench, same_but_for_near_ties, turn
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.wire import Cancel
from ryvion_node.engine.worker.choosing import Choice, Chooser, NotFinite
from ryvion_node.engine.worker.decoder import Decoder
from ryvion_node.engine.worker.job import Job
from ryvion_node.engine.worker.prompt_ends import PromptEnds
from ryvion_node.engine.worker.sequences import Sequences

ASKED = "Tell me a story about a fox, a hen and a farmer who sleeps."
ALICE, BOB = b"alice", b"bob"


@pytest.fixture(scope="module")
def bench(small_model: Path) -> Bench:
    return open_bench(small_model)


def rows_of(bench: Bench, decoder: Decoder, job: Job) -> int:
    """Prompt rows that running this job alone put into steps."""
    del bench.context.rows[:]
    bench.finish(decoder, job)
    return sum(rows for _, position, rows in bench.context.rows if position < len(job.prompt))


def test_the_same_owner_reads_only_what_is_new(bench: Bench) -> None:
    cold_job, first, again = bench.job(ASKED), bench.job(ASKED, owner=ALICE), bench.job(ASKED, owner=ALICE)
    cold = bench.finish(bench.decoder(), cold_job)[0]
    decoder = bench.decoder()
    assert rows_of(bench, decoder, first) == len(first.prompt)
    other = bench.job(ASKED + "!", owner=ALICE)
    assert 0 < rows_of(bench, decoder, other) == len(other.prompt) - bench.cached(other) < 8
    assert rows_of(bench, decoder, again) == len(again.prompt) - bench.cached(again)
    assert bench.cached(first) == 0
    warm = bench.tokens(again)
    assert same_but_for_near_ties(bench, cold_job, cold, warm)


def test_the_same_prompt_again_needs_no_step_and_gives_the_same_tokens(bench: Bench) -> None:
    """To the last bit: several seeds at a temperature at which each of a hundred tokens may come."""
    decoder = bench.decoder()
    asked = ASKED * 4
    for seed in range(4):
        said = []
        for _ in range(3):
            job = bench.job(asked, owner=seed.to_bytes(1, "big"))
            job.chooser = Chooser(bench.model.vocabulary, Sampling(2.0, 1.0, seed), job.prompt)
            rows = rows_of(bench, decoder, job)
            said.append(bench.tokens(job))
            assert (rows, bench.cached(job)) in [(len(job.prompt), 0), (0, len(job.prompt) - 1)]
        assert rows == 0
        assert said[0] == said[1] == said[2]


def test_what_follows_a_prompt_is_forgotten_with_it() -> None:
    ends, logits = PromptEnds(), np.zeros(3, np.float32)
    ends.keep(0, [1, 2, 3], logits)
    assert ends.find(0, [1, 2, 3], 2) is not None
    assert ends.find(1, [1, 2, 3], 2) is None
    for prompt, kept in (([1, 2, 3], 1), ([1, 2, 4], 2), ([1, 2, 3, 4], 3)):
        ends.keep(0, [1, 2, 3], logits)
        assert ends.find(0, prompt, kept) is None
        assert ends.find(0, [1, 2, 3], 2) is None, "another prompt's tokens lie there now"
    ends.keep(0, [7], logits)
    assert ends.find(0, [7], 0) is None, "nothing says whose it was"


def test_another_owner_finds_nothing(bench: Bench) -> None:
    decoder = bench.decoder()
    for owner in (ALICE, BOB, b"", b""):
        job = bench.job(ASKED, owner=owner)
        assert rows_of(bench, decoder, job) == len(job.prompt)
        assert bench.cached(job) == 0


def test_a_conversation_goes_on_where_it_was(bench: Bench) -> None:
    decoder = bench.decoder()
    first = bench.job(ASKED, owner=ALICE, max_tokens=12)
    made = bench.finish(decoder, first)[0]
    turns = (turn("user", ASKED), turn("assistant", bench.text(first)), turn("user", "And then?"))
    second = bench.chat(*turns, owner=ALICE)
    cold_job = bench.chat(*turns)
    read = rows_of(bench, decoder, second)
    # The answer's last token was never put into the cache.
    assert bench.cached(second) >= len(first.prompt) + len(made) - 1
    assert read == len(second.prompt) - bench.cached(second)
    warm = bench.tokens(second)
    cold = bench.finish(bench.decoder(), cold_job)[0]
    assert same_but_for_near_ties(bench, cold_job, cold, warm)


def test_a_cancelled_job_leaves_what_it_had_read(bench: Bench) -> None:
    decoder = bench.decoder(prompt_s=0.01)
    gone = bench.job(ASKED + " And a dog." * 8, owner=ALICE)
    decoder.post(gone)
    decoder.turn()
    assert 0 < gone.position < len(gone.prompt)
    decoder.post(Cancel(gone.number))
    again = bench.job(ASKED + " And a dog." * 8, owner=ALICE)
    bench.finish(decoder, again)
    assert bench.cached(again) == gone.position


class Broken(Chooser):
    """Finds that the logits are no numbers."""

    def choose(self, logits: npt.NDArray[np.float32], position: int) -> Choice:
        raise NotFinite


def test_a_broken_job_leaves_nothing(bench: Bench) -> None:
    decoder = bench.decoder()
    broken, after = bench.job(ASKED, owner=ALICE), bench.job(ASKED, owner=ALICE)
    broken.chooser.__class__ = Broken
    decoder.post(broken)
    decoder.turn()
    bench.finish(decoder, after)
    assert bench.cached(after) == 0


def test_a_memory_that_cannot_be_cut_is_read_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.context, "can_cut", False)
    decoder = bench.decoder()
    for _ in range(2):
        job = bench.job(ASKED, owner=ALICE)
        assert rows_of(bench, decoder, job) == len(job.prompt)
        assert bench.cached(job) == 0


def test_rows_that_fill_a_gap_leave_no_trace(bench: Bench) -> None:
    # Two passes cost more than one of three rows.
    decoder = bench.decoder(step_s={1: 1.0, 2: 1.1, 3: 1.2, 4: 1.3})
    others = two_jobs(bench)
    decoder.post(others[0])
    decoder.turn()
    before = bench.job(ASKED, owner=ALICE, max_tokens=2)
    bench.finish(decoder, before)
    decoder.post(others[1])
    while not bench.tokens(others[1]):
        decoder.turn()
    assert [job.sequence for job in (others[0], before, others[1])] == [0, 1, 2]
    del bench.context.rows[:]
    for _ in range(5):
        decoder.turn()
    filled = [row for row in bench.context.rows if row[0] == before.sequence]
    assert filled == [(before.sequence, before.position, 1)] * 5
    after = bench.job(ASKED, owner=ALICE, max_tokens=8)
    made = bench.finish(decoder, after)[0]
    assert bench.cached(after) == len(after.prompt) - 1
    both = bench.run(decoder, *others)
    fresh = [bench.job(ASKED, max_tokens=8), *two_jobs(bench)]
    alone = [bench.finish(bench.decoder(), job)[0] for job in fresh]
    assert all(map(same_but_for_near_ties, [bench] * 3, fresh, alone, [made, *both]))


def two_jobs(bench: Bench) -> list[Job]:
    return [bench.job(f"{word} and no more", max_tokens=60) for word in ("One", "Two")]


def test_the_least_recently_used_goes_first() -> None:
    sequences = Sequences(2)
    first, _ = sequences.take(ALICE, [1, 2, 3])
    second, _ = sequences.take(BOB, [1, 2, 3])
    sequences.give_back(second, BOB, [1, 2, 3])
    sequences.give_back(first, ALICE, [1, 2, 3])
    assert sequences.take(b"carol", [1, 2, 3]) == (second, 0)
    assert sequences.take(ALICE, [1, 2, 3]) == (first, 2)


def test_a_short_match_does_not_cost_a_conversation_while_there_is_room() -> None:
    sequences = Sequences(2)
    sequence, _ = sequences.take(ALICE, [1])
    sequences.give_back(sequence, ALICE, list(range(100)))
    prompt = [0, 1, 2, *range(900, 910)]
    other, kept = sequences.take(ALICE, prompt)
    assert (other != sequence, kept) == (True, 0)
    sequences.give_back(other, BOB, [5])
    assert sequences.take(ALICE, prompt) == (sequence, 3)


def test_most_of_a_prompt_is_worth_it() -> None:
    sequences = Sequences(2)
    sequence, _ = sequences.take(ALICE, [1])
    sequences.give_back(sequence, ALICE, list(range(100)))
    assert sequences.take(ALICE, [0, 1, 2, 3, 900]) == (sequence, 4)


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), min_size=1, max_size=20))
def test_the_common_beginning_is_kept(tokens: list[int], prompt: list[int]) -> None:
    sequences = Sequences(1)
    sequence, _ = sequences.take(ALICE, [1])
    sequences.give_back(sequence, ALICE, tokens)
    pairs = zip(tokens, prompt[:-1], strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert sequences.take(ALICE, prompt) == (sequence, common)


OWNERS = st.sampled_from([b"", ALICE, BOB])
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(OWNERS, PROMPTS, st.booleans()), max_size=30))
def test_nobody_is_given_what_another_left(jobs: list[tuple[bytes, list[int], bool]]) -> None:
    sequences = Sequences(SLOTS)
    left: dict[int, tuple[bytes, list[int]]] = {}
    running: list[tuple[int, bytes, list[int]]] = []
    for owner, prompt, ends in jobs:
        if sequences:
            sequence, kept = sequences.take(owner, prompt)
            assert sequence not in [each for each, _, _ in running]
            whose, tokens = left.pop(sequence, (b"", []))
            assert kept < len(prompt)
            assert not kept or (owner and whose == owner and tokens[:kept] == prompt[:kept])
            running.append((sequence, owner, prompt))
        if running and (ends or not sequences):
            sequence, owner, prompt = running.pop(0)
            if sequences.give_back(sequence, owner, prompt):
                assert owner
                left[sequence] = (owner, prompt)
