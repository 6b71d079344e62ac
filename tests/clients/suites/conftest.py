"""What every client's own run shares: asyncio, and no way out of this machine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

LOOPBACK = ("127.0.0.1", "::1", "localhost", None, "")
REFUSED: set[str] = set()


def _refuse_the_world(event: str, arguments: tuple[Any, ...]) -> None:
    """Anything a client looks up or connects to must be here: no price list, no telemetry, no tokenizer to fetch."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in LOOPBACK:
        REFUSED.add(str(host))
        raise ConnectionRefusedError(f"the client wants to talk to {host!r}")


sys.addaudithook(_refuse_the_world)


@pytest.fixture(scope="session", autouse=True)
def nothing_was_refused() -> Iterator[None]:
    """Clients go on without what they could not fetch, so the last test tells."""
    yield
    assert not REFUSED


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient() -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(max_retries=0) as made:
        yield made
