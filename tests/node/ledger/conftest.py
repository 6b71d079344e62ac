"""The real ledger on a file of its own, and the fake, under one name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio_asyncio

from ryvion_node.ledger.fake import FakeLedger
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.store import SqliteLedger, open_ledger
from tests.node.ledger.ledger_samples import ticking


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteLedger]:
    """The real one."""
    async with trio_asyncio.open_loop(), open_ledger(path, clock=ticking()) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "fake"])
async def ledger(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Ledger]:
    """Both, for what they promise alike."""
    if request.param == "fake":
        yield FakeLedger(clock=ticking())
        return
    async with trio_asyncio.open_loop(), open_ledger(path, clock=ticking()) as opened:
        yield opened
