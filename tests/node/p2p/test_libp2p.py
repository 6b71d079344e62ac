"""What libp2p alone must withstand: hostile bytes, lost processes, silent lines, taken ports, exhausted places."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from ryvion_node.p2p.interface import PeerUnreachable, Stream, StreamBroken
from ryvion_node.p2p.listening import PortTaken
from ryvion_node.p2p.peer_id import parse_address, peer_id_bytes
from ryvion_protocol.schema import NodeKey

from .conftest import Libp2pWorld, fresh_seed, key_for, until
from .test_contract import PROTOCOL, TOPIC, Ear, echo, listen_all, pair, read_all, read_exactly, star

if TYPE_CHECKING:
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork

ROOT = Path(__file__).parents[3]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture
def world() -> Libp2pWorld:
    return Libp2pWorld()


async def assert_serves(client: Libp2pNetwork, key: NodeKey) -> None:
    stream = await client.open_stream(key, PROTOCOL)
    await stream.send(b"still there?")
    assert await read_exactly(stream, 12) == b"still there?"
    await stream.close()


@asynccontextmanager
async def process(seed: bytes, listen: str = LOOPBACK) -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    """A peer in its own process and where it listens; killed at the end."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protocol")])
    command = [sys.executable, "-m", "tests.node.p2p.peer_process", seed.hex(), listen]
    with subprocess.Popen(  # noqa: ASYNC220 - starting is quick, and waiting happens in a thread
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    ) as child:
        assert child.stdout is not None
        try:
            yield child, (await trio.to_thread.run_sync(child.stdout.readline)).strip()
        finally:
            child.kill()


@asynccontextmanager
async def rpc_stream(attacker: Libp2pNetwork, victim: NodeKey) -> AsyncIterator[object]:
    """A raw gossip stream to the victim."""
    from libp2p.custom_types import TProtocol
    from libp2p.peer.id import ID

    await attacker._dialer.connection(victim)
    stream = await attacker._host.new_stream(ID(peer_id_bytes(victim)), [TProtocol("/meshsub/1.1.0")])
    yield stream
    await stream.reset()


async def test_kill_9_breaks_the_stream_and_a_restart_is_found_again(world: Libp2pWorld) -> None:
    seed = fresh_seed()
    ear = Ear()
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork

    async with process(seed) as (child, address):
        network = Libp2pNetwork(fresh_seed(), [LOOPBACK], [address])
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            await network.subscribe(TOPIC, ear.validate, ear.receive)
            await until(lambda: len(ear.heard) >= 3)
            stream = await network.open_stream(key_for(seed), PROTOCOL)
            await stream.send(b"cut off he")
            assert await read_exactly(stream, 10) == b"cut off he"

            child.send_signal(signal.SIGKILL)
            with trio.fail_after(2), pytest.raises(StreamBroken):
                await stream.receive()
            await stream.close()
            await until(lambda: network.snapshot().peers == ())
            with pytest.raises((PeerUnreachable, StreamBroken)):
                await network.open_stream(key_for(seed), PROTOCOL)

            ear.heard.clear()
            async with process(seed, parse_address(address).dial_part):
                await until(lambda: len(ear.heard) >= 3, within_s=20)
                await assert_serves(network, key_for(seed))
            nursery.cancel_scope.cancel()


async def test_a_listener_that_never_answers_is_unreachable_within_five_seconds(world: Libp2pWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with world.node() as client:
            key = key_for(fresh_seed())
            client.learn_addresses(key, [f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"])
            began = trio.current_time()
            with pytest.raises(PeerUnreachable):
                await client.open_stream(key, PROTOCOL)
            assert trio.current_time() - began < 6


async def test_a_dead_address_or_another_nodes_does_not_hide_the_right_one(world: Libp2pWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with pair(world) as (client, server, key), world.node() as other:
            server.serve(PROTOCOL, echo)
            wrong = parse_address(other.snapshot().listening[0]).dial_part
            hanging = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"
            client.learn_addresses(key, ["/ip4/127.0.0.1/tcp/1", wrong, hanging, *server.snapshot().listening])
            with trio.fail_after(2):
                await assert_serves(client, key)
            assert client.snapshot().peers == (key,)


async def test_garbage_on_the_port_and_after_the_first_greeting_harms_nothing(world: Libp2pWorld) -> None:
    greeting = b"\x13/multistream/1.0.0\n"
    noise = b"\x07/noise\n"
    hostile = [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 64,
        b"\xff\xff\xff\xff\x7f" + b"a" * 5000,
        greeting + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        greeting + b"\x80\x80\x80\x01" + b"b" * 100_000,
        greeting + b"\x13/plaintext/2.0.0\n" + b"c" * 500,
        greeting + noise + b"\xff\xff" + b"d" * 66_000,
        greeting + noise + b"\x00\x00",
    ]
    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, echo)
        await assert_serves(client, key)
        address = parse_address(server.snapshot().listening[0])
        for data in hostile:
            line = await trio.open_tcp_stream(address.host, address.port)
            with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
                await line.send_all(data)
                await line.send_eof()
                while await line.receive_some():
                    pass
            await line.aclose()
            await assert_serves(client, key)
        await until(lambda: server._swarm._inbound_limiter.borrowed_tokens == 1)


async def test_only_noise_is_spoken(world: Libp2pWorld) -> None:
    async with world.node() as server:
        address = parse_address(server.snapshot().listening[0])
        async with await trio.open_tcp_stream(address.host, address.port) as line:
            await line.send_all(b"\x13/multistream/1.0.0\n\x03ls\n")
            answer = b""
            with trio.move_on_after(0.5):
                while piece := await line.receive_some():
                    answer += piece
        assert b"/noise" in answer
        assert b"plaintext" not in answer
        assert b"tls" not in answer


async def test_garbage_on_a_stream_reaches_the_handler_as_bytes_and_unknown_protocols_are_refused(
    world: Libp2pWorld,
) -> None:
    from libp2p.stream_muxer.exceptions import MuxedStreamReset

    received: list[bytes] = []

    async def handler(stream: Stream) -> None:
        received.append(await read_all(stream))

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(bytes(range(256)))
        await stream.end_sending()  # type: ignore[attr-defined]
        assert await read_all(stream) == b""
        await stream.close()
        assert received == [bytes(range(256))]

        muxed = await (await client._dialer.connection(key)).open_stream()
        await muxed.write(b"\xff\xff\xff\xff\x7f" + b"junk" * 1000)
        assert (await muxed.read()).startswith(b"\x13/multistream")
        with pytest.raises(MuxedStreamReset):
            await muxed.read()
        server.serve(PROTOCOL, echo)
        await assert_serves(client, key)


async def test_hostile_multiplexing_by_an_authenticated_peer_costs_it_its_connection(world: Libp2pWorld) -> None:
    """Frames of unknown type, endless announcements, an overrun window, streams without end."""

    def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> bytes:
        return struct.pack("!BBHII", 0, kind, flags, stream_id, length) + body

    from libp2p.exceptions import BaseLibp2pError

    flood = b"".join(frame(1, 1, 2 * number + 1001, 0) for number in range(500))
    hostile = [
        [frame(9, 0xFFFF, 1, 7)],
        [frame(0, 0, 1, 2**32 - 1, b"x" * 100)],
        [frame(3, 0, 0, 77)],
        [flood],
        [frame(0, 1, 1001, 64_000, b"y" * 64_000), *[frame(0, 0, 1001, 64_000, b"y" * 64_000)] * 160],
        [bytes(range(256)) * 20],
    ]
    async with pair(world) as (client, server, key), world.node() as attacker:
        server.serve(PROTOCOL, echo)
        server.serve("/test/deaf/1", deaf)
        attacker.learn_addresses(key, server.snapshot().listening)
        steady = await client.open_stream(key, PROTOCOL)
        for frames in hostile:
            connection = await attacker._dialer.connection(key)
            with contextlib.suppress(BaseLibp2pError):
                for data in frames:
                    await connection._write_frame(data)
            await steady.send(b"unharmed")
            assert await read_exactly(steady, 8) == b"unharmed"
            held = [end.muxed_conn.stream_buffers for end in server._swarm.get_connections()]
            assert all(sum(map(len, buffers.values())) <= 8 * 1024 * 1024 for buffers in held)
            await connection.hang_up()
            await until(lambda: len(server.snapshot().peers) == 1)
        await steady.close()


async def deaf(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_a_stream_negotiated_step_by_step_is_served_too(world: Libp2pWorld) -> None:
    """As other libp2p implementations open streams: they wait for each answer."""
    from libp2p.custom_types import TProtocol
    from libp2p.peer.id import ID

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, echo)
        await client._dialer.connection(key)
        stream = await client._host.new_stream(ID(peer_id_bytes(key)), [TProtocol("/other/1"), TProtocol(PROTOCOL)])
        await stream.write(b"step by step")
        assert await stream.read(100) == b"step by step"
        await stream.close()


async def test_malformed_gossip_ends_neither_the_node_nor_its_gossip(world: Libp2pWorld) -> None:
    from libp2p.pubsub.pb import rpc_pb2
    from libp2p.utils.varint import encode_varint_prefixed

    def message(**fields: object) -> bytes:
        whole = {"data": b"x", "topicIDs": [TOPIC], "seqno": b"12345678", "from_id": b"\x12\x20" + b"q" * 32, **fields}
        return rpc_pb2.RPC(publish=[rpc_pb2.Message(**whole)]).SerializeToString()

    async with star(world, 2) as (hub, one, two), world.node() as attacker:
        ears = await listen_all(hub, one, two)
        key = hub.snapshot().node_key
        attacker.learn_addresses(key, hub.snapshot().listening)
        own = peer_id_bytes(attacker.snapshot().node_key)
        hostile = [
            b"\xff" * 40,
            encode_varint_prefixed(b"\xff\xff\xff"),
            encode_varint_prefixed(message(key=b"garbage", signature=b"s")),
            encode_varint_prefixed(message(from_id=own, signature=b"s" * 64)),
            encode_varint_prefixed(message(from_id=own, signature=b"s" * 64, topicIDs=[TOPIC] * 3)),
            encode_varint_prefixed(message(from_id=peer_id_bytes(key), signature=b"s" * 64)),
            encode_varint_prefixed(message(from_id=b"", seqno=b"", data=b"", topicIDs=[])),
            encode_varint_prefixed(rpc_pb2.RPC(senderRecord=b"nonsense").SerializeToString()),
            encode_varint_prefixed(
                rpc_pb2.RPC(
                    subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid="t" * 10_000)]
                ).SerializeToString()
            ),
            b"\xff\xff\xff\xff\x0f" + b"z" * 1000,
        ]
        for data in hostile:
            async with rpc_stream(attacker, key) as stream:
                await stream.write(data)  # type: ignore[attr-defined]
                await one.publish(TOPIC, b"after " + data[:20])
                await until(lambda data=data: ears[2].has(b"after " + data[:20]))  # type: ignore[misc]
        assert b"x" not in ears[0].judged
        assert all(len(topic) < 200 for topic in hub._pubsub.peer_topics)


async def test_a_peer_that_keeps_forwarding_false_messages_is_disconnected(world: Libp2pWorld) -> None:
    from libp2p.network.stream.exceptions import StreamError
    from libp2p.pubsub.pb import rpc_pb2
    from libp2p.utils.varint import encode_varint_prefixed

    async with pair(world) as (attacker, victim, key):
        ear = Ear()
        await victim.subscribe(TOPIC, ear.validate, ear.receive)
        own = attacker.snapshot().node_key
        async with rpc_stream(attacker, key) as stream:
            with contextlib.suppress(StreamError):
                for number in range(40):
                    false = rpc_pb2.Message(
                        data=b"x",
                        topicIDs=[TOPIC],
                        seqno=number.to_bytes(8, "big"),
                        from_id=peer_id_bytes(own),
                        signature=b"s" * 64,
                    )
                    await stream.write(  # type: ignore[attr-defined]
                        encode_varint_prefixed(rpc_pb2.RPC(publish=[false]).SerializeToString())
                    )
            await until(lambda: own not in victim.snapshot().peers)
        assert ear.judged == []


async def test_streams_leave_nothing_behind_and_too_many_at_once_are_refused(world: Libp2pWorld) -> None:
    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, echo)
        for _ in range(300):
            await assert_serves(client, key)
        connection = await client._dialer.connection(key)
        opened = []
        refused = 0
        for _ in range(70):
            stream = await client.open_stream(key, PROTOCOL)
            opened.append(stream)
            try:
                await stream.send(b"!")
                await stream.receive()
            except StreamBroken:
                refused += 1
        assert 1 <= refused <= 10
        for stream in opened:
            await stream.close()
        other_end = server._swarm.live_connection(client._host.get_id())
        assert other_end is not None
        for end in (connection, other_end):
            await until(lambda end=end: len(end.streams) <= 2)  # type: ignore[misc]
            assert len(end.stream_events) <= 2
            assert len(end.stream_buffers) <= 2
        assert connection.stream_backlog_semaphore.value >= 254
        await assert_serves(client, key)


async def test_connections_that_ended_free_their_places(world: Libp2pWorld) -> None:
    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, echo)
        server._swarm._inbound_limiter.total_tokens = 2
        for _ in range(4):
            await assert_serves(client, key)
            await client._host.disconnect(server._host.get_id())
            await until(lambda: server._swarm._inbound_limiter.borrowed_tokens == 0)


async def test_one_peer_gets_only_so_many_connections(world: Libp2pWorld) -> None:
    from libp2p.peer.id import ID
    from multiaddr import Multiaddr

    async with pair(world) as (client, server, key):
        address = parse_address(server.snapshot().listening[0]).dial_part
        for _ in range(8):
            await client._swarm.dial_addr(Multiaddr(address), ID(peer_id_bytes(key)))
        await until(lambda: len(server._swarm.get_connections()) <= 4)


async def test_a_silent_line_is_noticed(world: Libp2pWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from ryvion_node.p2p import libp2p_yamux

    monkeypatch.setattr(libp2p_yamux, "HEARTBEAT_EVERY_S", 0.3)
    monkeypatch.setattr(libp2p_yamux, "HEARTBEAT_ANSWER_S", 0.3)
    is_cut = False

    async def forward(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            if not is_cut:
                await sink.send_all(data)

    async with pair(world) as (client, server, key), trio.open_nursery() as nursery:
        target = parse_address(server.snapshot().listening[0])

        async def relay(line: trio.SocketStream) -> None:
            onward = await trio.open_tcp_stream(target.host, target.port)
            async with onward, trio.open_nursery() as both:
                both.start_soon(forward, line, onward)
                both.start_soon(forward, onward, line)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay, listeners)
        client.learn_addresses(key, [f"/ip4/127.0.0.1/tcp/{listeners[0].socket.getsockname()[1]}"])
        server.serve(PROTOCOL, echo)
        await assert_serves(client, key)
        await trio.sleep(1.5)
        assert client.snapshot().peers == (key,), "an idle connection that answers is kept"
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"?")
        assert await stream.receive() == b"?"
        is_cut = True
        with trio.fail_after(4), pytest.raises(StreamBroken):
            await stream.receive()
        await until(lambda: client.snapshot().peers == ())
        await stream.close()
        nursery.cancel_scope.cancel()


async def test_a_taken_port_is_named_with_the_mend(world: Libp2pWorld) -> None:
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork

    async with world.node() as first:
        address = parse_address(first.snapshot().listening[0])
        second = Libp2pNetwork(fresh_seed(), [address.dial_part])
        with pytest.raises(PortTaken, match=rf"(?s)Port {address.port} .*--listen"):
            await second.run()


async def test_listening_everywhere_names_addresses_that_can_be_dialled() -> None:
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork

    network = Libp2pNetwork(fresh_seed(), ["/ip4/0.0.0.0/tcp/0"])
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        hosts = [parse_address(text).host for text in network.snapshot().listening]
        assert "0.0.0.0" not in hosts
        assert hosts[-1] == "127.0.0.1"
        nursery.cancel_scope.cancel()


def test_addresses_that_make_no_sense_are_operator_errors() -> None:
    from ryvion_node.errors import OperatorError
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork

    for listen, bootstrap in (("localhost:7987", ()), (LOOPBACK, ("/ip4/203.0.113.7/tcp/7987",)), (LOOPBACK, ("x",))):
        with pytest.raises(OperatorError, match="Use the form"):
            Libp2pNetwork(fresh_seed(), [listen], bootstrap)


def test_the_library_writes_nothing_to_the_terminal() -> None:
    script = (
        "import logging\n"
        "from ryvion_node.p2p.libp2p_network import Libp2pNetwork\n"
        "Libp2pNetwork(bytes(32), ['/ip4/127.0.0.1/tcp/0'])\n"
        "logging.getLogger('libp2p.network.swarm').warning('a library warning')\n"
        "code = compile(\"import logging; logging.warning('from the library')\", '/site-packages/libp2p/x.py', 'exec')\n"
        "exec(code)\n"
        "logging.getLogger('ryvion_node').warning('ours')\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "protocol")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "library" not in done.stderr


def test_what_others_import_does_not_import_libp2p() -> None:
    script = (
        "import sys\n"
        "import ryvion_node.p2p, ryvion_node.p2p.interface, ryvion_node.p2p.fake, ryvion_node.p2p.peer_id\n"
        "import ryvion_node.p2p.listening, ryvion_node.p2p.address_book\n"
        "assert 'libp2p' not in sys.modules and 'multiaddr' not in sys.modules\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "protocol")])
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": path})
