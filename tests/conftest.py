"""Shared by every test: which event loop `async def` tests run on."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Plain tests that happen to be async run on trio; folders with other needs override this."""
    return "trio"
