"""Yamux as libp2p speaks it, made lean and safe: fixed windows, capped buffers, heartbeats, whole frames.

Differences from the library's classes, all within the Yamux specification:
- credit is returned once half a window is read, not with a frame per read; windows do not grow, so memory is bounded;
- a frame is written whole or the connection ends: a cancelled write would leave the Noise nonces out of step,
  and with them every other stream of the connection;
- a connection that stays silent is asked for a sign of life, and dropped when it gives none.
"""

from __future__ import annotations

import contextlib
import logging
import struct

import trio
from libp2p.abc import IMuxedConn, IRawConnection, ISecureConn
from libp2p.io.exceptions import IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_SYN,
    GO_AWAY_NORMAL,
    HEADER_SIZE,
    MAX_MESSAGE_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)
from libp2p.transport.exceptions import MuxerUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader

from ryvion_node.log import log_event
from ryvion_node.p2p.constants import (
    CLOSE_S,
    HEARTBEAT_ANSWER_S,
    HEARTBEAT_EVERY_S,
    HEARTBEAT_MISSES,
    MAX_CONNECTION_BUFFER_BYTES,
    READ_AHEAD_BYTES,
    RECEIVE_MAX_BYTES,
    SEND_STALL_S,
)
from ryvion_node.p2p.peer_id import BadAddress, key_of_bytes

log = logging.getLogger("ryvion.p2p.yamux")

_WINDOW_POLL_S = 0.005
_WRITE_ERRORS = (IOException, RawConnError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_MAX_CHUNK_BYTES = MAX_MESSAGE_SIZE - HEADER_SIZE


class LeanYamuxStream(YamuxStream):
    """One reader and one writer at a time; no locks, because nothing awaits between reading and writing state."""

    def __init__(self, stream_id: int, conn: Yamux, is_initiator: bool) -> None:
        super().__init__(stream_id, conn, is_initiator)
        self._unreturned_bytes = 0
        """Read by us, and not yet returned to the peer as credit."""
        self.is_unannounced = False
        """We opened it and sent nothing yet: the first frame of data will announce it."""

    async def write(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            if self.send_closed or self.closed:
                raise MuxedStreamError("the stream is closed for sending")
            if self.send_window <= 0:
                await self._wait_for_window()
                continue
            chunk = data[sent : sent + min(self.send_window, _MAX_CHUNK_BYTES)]
            self.send_window -= len(chunk)
            flags, self.is_unannounced = FLAG_SYN if self.is_unannounced else 0, False
            header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, flags, self.stream_id, len(chunk))
            await self.conn._write_frame(header + chunk)  # noqa: SLF001 - a subclass's own
            sent += len(chunk)

    async def read(self, n: int | None = -1) -> bytes:
        """Whatever has arrived, at most `n` bytes; MuxedStreamEOF at the peer's orderly end, else MuxedStreamReset.

        A cancelled read takes nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        limit = RECEIVE_MAX_BYTES if n is None or n < 0 else n
        conn, stream_id = self.conn, self.stream_id
        while True:
            buffer = conn.stream_buffers.get(stream_id)
            if buffer:
                data = bytes(buffer[:limit])
                del buffer[:limit]
                await self._return_credit(len(data))
                return data
            if conn.event_shutting_down.is_set():
                raise MuxedStreamReset("the connection is gone")
            if self.recv_closed:
                raise MuxedStreamEOF("the peer closed its end")
            arrival = conn.stream_events.get(stream_id)
            if self.closed or arrival is None:
                raise MuxedStreamReset("the stream was reset")
            await arrival.wait()
            if conn.stream_events.get(stream_id) is arrival:
                conn.stream_events[stream_id] = trio.Event()

    async def close(self) -> None:
        if self.is_unannounced:
            self.forget()
        else:
            await super().close()

    async def reset(self) -> None:
        try:
            if not self.is_unannounced:
                await super().reset()
        finally:
            self.forget()

    def forget(self) -> None:
        """End the stream here and free its place in the connection's tables, with what was not read."""
        self.closed = self.send_closed = self.recv_closed = True
        self.conn.stream_buffers.pop(self.stream_id, None)
        self.conn._finalize_stream_locked(self, fully_closed=True)  # noqa: SLF001 - atomic, so it needs no lock

    async def _return_credit(self, count: int) -> None:
        if self.closed:
            self.conn._finalize_stream_locked(self, fully_closed=True)  # noqa: SLF001 - atomic, so it needs no lock
            return
        self._unreturned_bytes += count
        if self._unreturned_bytes < DEFAULT_WINDOW_SIZE // 2 or self.recv_closed:
            return
        credit, self._unreturned_bytes = self._unreturned_bytes, 0
        self.recv_window += credit
        with trio.CancelScope(shield=True):
            await self.send_window_update(credit)

    async def _wait_for_window(self) -> None:
        with trio.move_on_after(SEND_STALL_S):
            # The library sets plain attributes and wakes nobody.
            while self.send_window <= 0 and not self.closed and not self.send_closed:  # noqa: ASYNC110
                await trio.sleep(_WINDOW_POLL_S)
        if self.send_window <= 0:
            raise MuxedStreamError(f"the peer took nothing for {SEND_STALL_S:.0f} s")


class WatchedYamux(Yamux):
    """A connection that notices silence and refuses to buffer without bound."""

    def __init__(self, secured_conn: ISecureConn, peer_id: ID, is_initiator: bool | None = None) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=is_initiator)
        self._heard_s = trio.current_time()

    async def open_stream(self) -> LeanYamuxStream:
        """Take one of the connection's 256 places; the peer hears of the stream with its first data, a frame less."""
        await self.stream_backlog_semaphore.acquire()
        if self.event_shutting_down.is_set():
            self.stream_backlog_semaphore.release()
            raise MuxedStreamError("the connection is gone")
        stream = LeanYamuxStream(self.next_stream_id, self, True)
        stream.is_unannounced = True
        stream._owns_backlog_slot = True  # noqa: SLF001 - the library releases it with the stream
        self.next_stream_id += 2
        self.streams[stream.stream_id] = stream
        self.stream_buffers[stream.stream_id] = bytearray()
        self.stream_events[stream.stream_id] = trio.Event()
        return stream

    async def _write_frame(self, data: bytes) -> None:
        """Write a frame whole, in turn; cancellation can only come before its first byte."""
        async with self._write_lock:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_STALL_S) as writing:
                try:
                    await self.secured_conn.write(data)
                except _WRITE_ERRORS as exc:
                    # Of all errors this one makes the reading task end the connection at once.
                    raise RawConnError("connection closed") from exc
        if writing.cancelled_caught:
            await self._drop("a frame could not be written")
            raise RawConnError("the peer takes nothing")

    async def _read_data_body(self, length: int) -> bytes:
        self._heard_s = trio.current_time()
        held_bytes = sum(map(len, self.stream_buffers.values()))
        if held_bytes + length > MAX_CONNECTION_BUFFER_BYTES:
            await self._drop("the peer overran its windows")
        return await super()._read_data_body(length)

    async def _measure_rtt_loop(self) -> None:
        """The library's own periodic task; here it also decides whether the peer is still there."""
        misses = 0
        while not self.event_shutting_down.is_set():
            await trio.sleep(HEARTBEAT_EVERY_S)
            if trio.current_time() - self._heard_s < HEARTBEAT_EVERY_S:
                misses = 0
                continue
            self._ping_id += 1
            self._ping_event = trio.Event()
            self._ping_sent_time = trio.current_time()
            with trio.move_on_after(HEARTBEAT_ANSWER_S):
                try:
                    await self._write_frame(
                        struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id & 0xFFFFFFFF)
                    )
                except _WRITE_ERRORS:
                    return
                await self._ping_event.wait()
            misses = 0 if self._ping_event.is_set() else misses + 1
            if misses >= HEARTBEAT_MISSES:
                await self._drop("no sign of life")
                return

    async def hang_up(self) -> None:
        """Say goodbye and close the line; the library's own way takes 0.2 s longer."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            with contextlib.suppress(*_WRITE_ERRORS):
                await self._write_frame(struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_GO_AWAY, 0, 0, GO_AWAY_NORMAL))
            await self.secured_conn.close()

    async def _drop(self, reason: str) -> None:
        """Cut the connection; the reading task then cleans up after it."""
        log_event(log, "connection_dropped", peer=self.peer_id, reason=reason)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await self.secured_conn.close()


class ReadAheadTcpStream(TrioTCPStream):
    """Takes what the system has ready at once; a Noise frame costs two reads, and each would be a system call."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._ahead = b""
        self._offset = 0

    async def read(self, n: int | None = None) -> bytes:
        if self._offset == len(self._ahead):
            self._ahead, self._offset = await super().read(READ_AHEAD_BYTES), 0
        start = self._offset
        self._offset = len(self._ahead) if n is None else min(start + n, len(self._ahead))
        return self._ahead[start : self._offset]


class Upgrader(TransportUpgrader):
    """Makes every connection a WatchedYamux, and refuses peers whose id is no Ed25519 key."""

    async def upgrade_security(
        self, raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None
    ) -> ISecureConn:
        if isinstance(raw_conn, RawConnection) and isinstance(raw_conn.stream, TrioTCPStream):
            raw_conn.stream = ReadAheadTcpStream(raw_conn.stream.stream)
        return await super().upgrade_security(raw_conn, is_initiator, peer_id)

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        try:
            key_of_bytes(peer_id.to_bytes())
            await self.muxer_multistream.select_transport(conn)
        except BadAddress as exc:
            raise MuxerUpgradeFailure("the peer has no Ed25519 key") from exc
        except (MultiselectError, MultiselectClientError) as exc:
            raise MuxerUpgradeFailure("no common multiplexer") from exc
        return WatchedYamux(conn, peer_id, is_initiator=conn.is_initiator)


yamux.YamuxStream = LeanYamuxStream  # type: ignore[misc]
