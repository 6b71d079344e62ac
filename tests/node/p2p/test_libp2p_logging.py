"""The library's own words stay off the terminal."""

from __future__ import annotations

import logging

import pytest
import trio
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from ryvion_node.p2p.libp2p_logging import quiet_libp2p


class Kept(logging.Handler):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(record.getMessage())


async def test_an_address_that_does_not_answer_is_no_error_of_the_library() -> None:
    quiet_libp2p()
    library, kept = logging.getLogger("libp2p"), Kept()
    library.addHandler(kept)
    try:
        with pytest.raises(OpenConnectionError), trio.fail_after(5):
            await TCP().dial(Multiaddr("/ip4/127.0.0.1/tcp/1"))
    finally:
        library.removeHandler(kept)
    assert kept.texts == []
