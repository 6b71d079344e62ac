"""A job stream as messages: framing, decoding and the job state machine around one `Stream`."""

from __future__ import annotations

from collections import deque
from typing import Literal

from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_protocol.framing import FrameDecoder, frame
from ryvion_protocol.job import JobMachine
from ryvion_protocol.packet import Packet, unpack
from ryvion_protocol.schema import NodeKey


class ChannelClosed(StreamBroken):
    """The peer closed its end between two messages."""


class JobChannel:
    """Sends and receives the messages of one job stream, in the order the state machine allows.

    One task may send while another receives. Errors: `ProtocolError` when the peer breaks the protocol,
    `StreamBroken` when the stream does (`ChannelClosed` at an orderly end).
    """

    def __init__(self, stream: Stream, role: Literal["requester", "executor"]) -> None:
        self.machine = JobMachine(role)
        self._stream = stream
        self._decoder = FrameDecoder(self.machine.max_frame_bytes)
        self._frames: deque[bytes] = deque()
        self.frames_received = 0
        self.frame_bytes_received = 0

    @property
    def peer(self) -> NodeKey:
        return self._stream.peer

    async def send(self, *packets: Packet) -> None:
        """Send packets in one write."""
        for packet in packets:
            self.machine.on_sent(type(packet.message))
        await self._stream.send(b"".join(frame(packet.raw) for packet in packets))

    async def receive(self) -> Packet:
        """The next message; its class is one that the state machine allows now."""
        while not self._frames:
            data = await self._stream.receive()
            if not data:
                self._decoder.finish()
                raise ChannelClosed("the peer closed the stream")
            # Every frame taken in so far has been handed out, so the machine knows what may come next.
            self._decoder.max_bytes = self.machine.max_frame_bytes
            self._frames.extend(self._decoder.feed(data))
        raw = self._frames.popleft()
        self.frames_received += 1
        self.frame_bytes_received += len(raw)
        packet = unpack(raw, self.machine.expects)
        self.machine.on_received(type(packet.message))
        return packet

    async def close(self) -> None:
        await self._stream.close()
