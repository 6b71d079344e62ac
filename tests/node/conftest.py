"""Node tests run on trio; those marked `virtual_time` never really wait."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Trio; marked `virtual_time`: with a clock that jumps to the next deadline as soon as every task waits."""
    if request.node.get_closest_marker("virtual_time") is None:
        return "trio", {}
    return "trio", {"clock": MockClock(autojump_threshold=0)}
