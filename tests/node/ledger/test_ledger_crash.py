"""kill -9 in the middle of writing: everything that was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio_asyncio

from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.store import open_ledger
from tests.node.ledger.ledger_samples import CHECKS, begun, job_id, ticking

ROOT = Path(__file__).parents[3]


async def test_every_acknowledged_write_survives_a_kill(path: Path) -> None:
    acknowledged = run_until_killed(path, lines=150)
    assert len(acknowledged) >= 150
    with read_ledger(path) as view:
        assert view.find_damage() is None
        for line in acknowledged:
            what, number = line.split()
            job = view.job(job_id(int(number)), "bought")
            assert job is not None, line
            assert job.state == "accepted" or (what == "begun" and job.state == "running"), line
        for record in view.receipts(1000):
            assert len(view.evidence(record.job.job_id, "bought")) == 6
            assert view.checks(record.job.job_id, "bought") == CHECKS
    async with trio_asyncio.open_loop(), open_ledger(path, clock=ticking()) as ledger:
        interrupted = await ledger.abandon_unfinished()
        assert len(interrupted) <= 4
        await ledger.begin_job(begun(10**6))


def run_until_killed(path: Path, lines: int) -> list[str]:
    """Start the writer, kill it without warning after `lines` acknowledgements; returns all it printed."""
    command = [sys.executable, "-m", "tests.node.ledger.crashing_writer", str(path)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        printed += process.stdout.readlines()
    return [line.strip() for line in printed if line.endswith("\n")]
