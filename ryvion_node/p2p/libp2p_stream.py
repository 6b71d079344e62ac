"""One libp2p stream as the node's `Stream`, with errors translated and its end told apart from its breaking."""

from __future__ import annotations

import logging

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from ryvion_node.log import log_event
from ryvion_node.p2p.constants import CLOSE_S, RECEIVE_MAX_BYTES
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_node.p2p.libp2p_yamux import LeanYamuxStream
from ryvion_node.p2p.peer_id import key_of_bytes
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.p2p.stream")

_TRANSPORT_ERRORS = (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_MULTISTREAM = b"/multistream/1.0.0"


class Libp2pStream(Stream):
    """A Yamux stream; what its multiplexer raises becomes StreamBroken.

    For a stream that we opened, the `proposal` of its protocol goes with the first bytes we send instead of two
    round trips before them, and the peer's answer is read ahead of its first bytes. A peer that does not speak the
    protocol breaks the stream there. For one that was opened to us this way, the `agreement` goes with our first
    bytes likewise.
    """

    def __init__(self, muxed: LeanYamuxStream, *, proposal: bytes = b"", agreement: bytes = b"") -> None:
        self._muxed = muxed
        self._peer = key_of_bytes(muxed.conn.peer_id.to_bytes())
        self._preface = proposal or agreement
        """Still to be sent ahead of everything."""
        self._answer = proposal
        """Still to be received ahead of everything: the peer repeats what it agrees to."""
        self._is_closed = False
        self._is_torn = False
        """A send was cancelled or failed part way: what would follow makes no sense to the peer."""

    @property
    def peer(self) -> NodeKey:
        return self._peer

    async def send(self, data: bytes) -> None:
        if self._is_closed or self._is_torn:
            raise StreamBroken("the stream is closed, or an earlier send did not finish")
        await self._write(data)

    async def receive(self) -> bytes:
        if self._is_closed or (self._is_torn and self._answer):
            raise StreamBroken("the stream is closed, or its proposal was never sent")
        if self._answer and self._preface:
            await self._write(b"")
        while True:
            data = await self._read()
            if not self._answer:
                return data
            if rest := self._match_answer(data):
                return rest

    async def close(self) -> None:
        if self._is_torn:
            # An orderly end after half a frame would look like success.
            await self.reset()
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            try:
                if self._preface and not self._answer:
                    await self._muxed.write(self._preface)
                await self._muxed.close()
                if not self._muxed.closed:
                    # After the orderly end this only frees both sides: what was sent can still be read.
                    await self._muxed.reset()
            except _TRANSPORT_ERRORS as exc:
                log_event(log, "stream_close_failed", level=logging.DEBUG, reason=type(exc).__name__)
        self._muxed.forget()

    async def end_sending(self) -> None:
        """Half-close: the peer reads b"" after what was sent; we can still receive."""
        await self.send(b"")
        try:
            await self._muxed.close()
        except _TRANSPORT_ERRORS as exc:
            raise StreamBroken(f"closing failed: {exc}") from exc

    async def reset(self) -> None:
        """Break the stream, unless it is closed: the peer's next receive raises StreamBroken."""
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            try:
                await self._muxed.reset()
            except _TRANSPORT_ERRORS as exc:
                log_event(log, "stream_reset_failed", level=logging.DEBUG, reason=type(exc).__name__)
        self._muxed.forget()

    async def _write(self, data: bytes) -> None:
        preface, self._preface = self._preface, b""
        try:
            await self._muxed.write(preface + data)
        except BaseException as exc:
            self._is_torn = True
            if isinstance(exc, _TRANSPORT_ERRORS):
                raise StreamBroken(f"sending failed: {exc}") from exc
            raise

    async def _read(self) -> bytes:
        try:
            return await self._muxed.read(RECEIVE_MAX_BYTES)
        except MuxedStreamEOF as exc:
            if self._answer:
                raise StreamBroken("the peer does not speak the protocol") from exc
            return b""
        except _TRANSPORT_ERRORS as exc:
            raise StreamBroken(f"receiving failed: {exc}") from exc

    def _match_answer(self, data: bytes) -> bytes:
        """Take the agreed lines off the front of what arrived; what follows them."""
        expected = self._answer[: len(data)]
        if not data.startswith(expected):
            raise StreamBroken("the peer does not speak the protocol")
        self._answer = self._answer[len(expected) :]
        return data[len(expected) :]


def proposal_of(protocol: str) -> bytes:
    """What opens a stream in multistream-select: its own name, then the protocol's, each a line with its length."""
    return _line(_MULTISTREAM) + _line(protocol.encode())


def _line(text: bytes) -> bytes:
    line = text + b"\n"
    if len(line) > 0x7F:
        raise ValueError("a protocol id has at most 126 bytes")
    return bytes([len(line)]) + line
