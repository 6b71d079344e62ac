"""What every Network promises, on the fake and on libp2p alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from ryvion_node.p2p.interface import Network, PeerUnreachable, Stream, StreamBroken
from ryvion_node.p2p.peer_id import key_of, parse_address
from ryvion_protocol.schema import NodeKey

from .conftest import World, fresh_seed, key_for, until

PROTOCOL = "/test/echo/1"
TOPIC = "test/topic"


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.receive():
        parts.append(data)
    return b"".join(parts)


async def read_exactly(stream: Stream, count: int) -> bytes:
    held = b""
    while len(held) < count:
        data = await stream.receive()
        assert data, "ended early"
        held += data
    return held


@asynccontextmanager
async def pair(world: World) -> AsyncIterator[tuple[Network, Network, NodeKey]]:
    """A client that knows a server's address, the server, and its key."""
    async with world.node() as server, world.node() as client:
        key = server.snapshot().node_key
        client.learn_addresses(key, server.snapshot().listening)
        yield client, server, key


@asynccontextmanager
async def star(world: World, leaves: int) -> AsyncIterator[tuple[Network, ...]]:
    """A hub and nodes that know only the hub; hub first."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(world.node())
        others = [await stack.enter_async_context(world.node(hub)) for _ in range(leaves)]
        await until(lambda: len(hub.snapshot().peers) == leaves)
        yield (hub, *others)


class Ear:
    """A topic's reader that keeps what it hears and refuses messages starting with `bad`; `boom` makes it raise."""

    def __init__(self) -> None:
        self.judged: list[bytes] = []
        self.heard: list[tuple[NodeKey, bytes]] = []

    def validate(self, author: NodeKey, data: bytes) -> bool:
        self.judged.append(data)
        if data == b"boom":
            raise RuntimeError("a validator that fails")
        return not data.startswith(b"bad")

    def receive(self, author: NodeKey, data: bytes) -> None:
        self.heard.append((author, data))

    def has(self, data: bytes) -> bool:
        return any(heard == data for _, heard in self.heard)


async def listen_all(*nodes: Network) -> list[Ear]:
    """Subscribe every node, and wait until gossip flows from the last to the first and back."""
    ears = [Ear() for _ in nodes]
    for node, ear in zip(nodes, ears, strict=True):
        await node.subscribe(TOPIC, ear.validate, ear.receive)
    for number, node in enumerate(nodes):
        others = [ear for ear in ears if ear is not ears[number]]
        hello = b"hello %d" % number
        with trio.fail_after(10):
            while not all(ear.has(hello) for ear in others):
                await node.publish(TOPIC, hello)
                await trio.sleep(0.1)
    return ears


async def test_a_stream_carries_bytes_both_ways_and_names_the_authenticated_peer(world: World) -> None:
    seen: list[NodeKey] = []

    async def handler(stream: Stream) -> None:
        seen.append(stream.peer)
        await echo(stream)

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"hello")
        assert await read_exactly(stream, 5) == b"hello"
        assert stream.peer == key
        assert seen == [client.snapshot().node_key]
        await stream.close()
        await stream.close()


async def test_large_data_arrives_whole_in_pieces_of_bounded_size(world: World) -> None:
    data = bytes(range(256)) * 4096
    pieces: list[int] = []

    async def handler(stream: Stream) -> None:
        while piece := await stream.receive():
            pieces.append(len(piece))
            await stream.send(piece)

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send, data)
            assert await read_exactly(stream, len(data)) == data
        await stream.close()
    assert max(pieces) <= 64 * 1024


async def test_the_server_may_speak_first(world: World) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(b"welcome")

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        assert await read_all(stream) == b"welcome"
        await stream.close()


async def test_after_a_half_close_the_answer_still_comes(world: World) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(b"you said " + await read_all(stream))

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"all of it")
        await stream.end_sending()  # type: ignore[attr-defined]
        assert await read_all(stream) == b"you said all of it"
        await stream.close()


async def test_what_was_sent_before_a_close_can_still_be_read(world: World) -> None:
    received: list[bytes] = []
    closed = trio.Event()
    read = trio.Event()

    async def handler(stream: Stream) -> None:
        await closed.wait()
        received.append(await read_all(stream))
        read.set()

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"x" * 100_000)
        await stream.close()
        closed.set()
        with trio.fail_after(5):
            await read.wait()
    assert received == [b"x" * 100_000]


async def test_a_reset_in_the_middle_is_told_apart_from_an_end(world: World) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(b"half a fra")
        await stream.receive()
        await stream.reset()  # type: ignore[attr-defined]

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        assert await read_exactly(stream, 10) == b"half a fra"
        await stream.send(b"go on")
        with pytest.raises(StreamBroken):
            await read_all(stream)
        await stream.close()


async def test_a_handler_that_raises_breaks_its_stream_and_nothing_else(world: World) -> None:
    async def handler(stream: Stream) -> None:
        if await stream.receive() == b"die":
            raise RuntimeError("a handler that fails")
        await stream.send(b"fine")

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        doomed = await client.open_stream(key, PROTOCOL)
        await doomed.send(b"die")
        with pytest.raises(StreamBroken):
            await doomed.receive()
        await doomed.close()
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"live")
        assert await stream.receive() == b"fine"
        await stream.close()


async def test_a_node_that_stops_breaks_its_streams_and_is_gone(world: World) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(b"hello")
        await trio.sleep_forever()

    async with world.node() as client:
        async with world.node() as server:
            key = server.snapshot().node_key
            client.learn_addresses(key, server.snapshot().listening)
            server.serve(PROTOCOL, handler)
            stream = await client.open_stream(key, PROTOCOL)
            await stream.send(b"?")
            assert await read_exactly(stream, 5) == b"hello"
        with trio.fail_after(2), pytest.raises(StreamBroken):
            await stream.receive()
        await stream.close()
        await until(lambda: client.snapshot().peers == ())
        with pytest.raises(PeerUnreachable):
            await client.open_stream(key, PROTOCOL)


async def test_a_protocol_that_nobody_serves(world: World) -> None:
    async with pair(world) as (client, _server, key):
        with pytest.raises((PeerUnreachable, StreamBroken)):
            await (await client.open_stream(key, "/test/unknown/1")).receive()


async def test_a_peer_without_a_known_address_is_unreachable(world: World) -> None:
    async with world.node() as client:
        with pytest.raises(PeerUnreachable):
            await client.open_stream(key_for(fresh_seed()), PROTOCOL)
        with pytest.raises(PeerUnreachable):
            await client.open_stream(client.snapshot().node_key, PROTOCOL)


async def test_a_slow_reader_loses_nothing_and_one_that_never_reads_breaks_the_stream(world: World) -> None:
    data = b"y" * 600_000
    start_reading = trio.Event()
    counted: list[int] = []

    async def slow(stream: Stream) -> None:
        await start_reading.wait()
        counted.append(len(await read_all(stream)))

    async def deaf(stream: Stream) -> None:
        await trio.sleep_forever()

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, slow)
        server.serve("/test/deaf/1", deaf)
        stream = await client.open_stream(key, PROTOCOL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send, data)
            await trio.sleep(0.3)
            start_reading.set()
        await stream.close()
        await until(lambda: counted == [len(data)])

        stalled = await client.open_stream(key, "/test/deaf/1")
        began = trio.current_time()
        with pytest.raises(StreamBroken):
            await stalled.send(data)
        assert 4 < trio.current_time() - began < 7
        await stalled.close()


async def test_a_cancelled_send_costs_one_stream_not_the_connection(world: World) -> None:
    ends: list[str] = []
    deaf_for = trio.Event()

    async def deaf(stream: Stream) -> None:
        await deaf_for.wait()
        try:
            await read_all(stream)
            ends.append("orderly")
        except StreamBroken:
            ends.append("broken")

    async with pair(world) as (client, server, key):
        server.serve("/test/deaf/1", deaf)
        server.serve(PROTOCOL, echo)
        steady = await client.open_stream(key, PROTOCOL)
        for _ in range(5):
            stream = await client.open_stream(key, "/test/deaf/1")
            with trio.move_on_after(0.02):
                await stream.send(b"z" * 1_000_000)
            with pytest.raises(StreamBroken):
                await stream.send(b"more")
            await stream.close()
            await steady.send(b"still here")
            assert await read_exactly(steady, 10) == b"still here"
        deaf_for.set()
        await until(lambda: ends == ["broken"] * 5)
        await steady.close()


async def test_a_cancelled_receive_loses_nothing(world: World) -> None:
    data = bytes(range(256)) * 2000

    async def handler(stream: Stream) -> None:
        await stream.receive()
        for start in range(0, len(data), 3_000):
            await stream.send(data[start : start + 3_000])

    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, handler)
        stream = await client.open_stream(key, PROTOCOL)
        await stream.send(b"go")
        held = b""
        is_over = False
        with trio.fail_after(10):
            while not is_over:
                with trio.move_on_after(0.0005):
                    piece = await stream.receive()
                    held += piece
                    is_over = not piece
        assert held == data
        await stream.close()


async def test_many_streams_one_after_another_and_at_once(world: World) -> None:
    async with pair(world) as (client, server, key):
        server.serve(PROTOCOL, echo)

        async def use(count: int) -> None:
            for _ in range(count):
                stream = await client.open_stream(key, PROTOCOL)
                await stream.send(b"ping")
                assert await read_exactly(stream, 4) == b"ping"
                await stream.close()

        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(use, 20)


async def test_gossip_reaches_everyone_through_a_middle_node_but_not_its_author(world: World) -> None:
    async with star(world, 2) as (hub, one, two):
        ears = await listen_all(hub, one, two)
        author = one.snapshot().node_key
        await one.publish(TOPIC, b"news")
        await until(lambda: ears[2].has(b"news"))
        assert (author, b"news") in ears[2].heard
        assert (author, b"news") in ears[0].heard
        assert not ears[1].has(b"news")
        assert two.snapshot().node_key not in one.snapshot().peers


async def test_a_nodes_last_words_arrive(world: World) -> None:
    async with world.node() as hub:
        async with world.node(hub) as leaver:
            ears = await listen_all(hub, leaver)
            for number in range(20):
                await leaver.publish(TOPIC, b"going %d" % number)
        await until(lambda: ears[0].has(b"going 19"), within_s=2)


async def test_what_a_validator_refuses_or_fails_on_is_not_forwarded(world: World) -> None:
    async with star(world, 2) as (hub, one, two):
        ears = await listen_all(hub, one, two)
        for data in (b"bad news", b"boom", b"good news"):
            await one.publish(TOPIC, data)
        await until(lambda: ears[2].has(b"good news"))
        assert {b"bad news", b"boom"} <= set(ears[0].judged)
        assert not {b"bad news", b"boom"} & set(ears[2].judged)


async def test_a_burst_of_two_hundred_messages_arrives_once_each_and_a_flood_is_cut(world: World) -> None:
    async with star(world, 2) as (hub, one, two):
        ears = await listen_all(hub, one, two)
        burst = [b"message %d" % number for number in range(200)]
        for data in burst:
            await one.publish(TOPIC, data)
        await until(lambda: ears[2].has(burst[-1]))
        assert sorted(data for _, data in ears[2].heard if data in set(burst)) == sorted(burst)

        for number in range(200):
            await one.publish(TOPIC, b"flood %d" % number)
        await two.publish(TOPIC, b"a quiet author")
        await until(lambda: ears[0].has(b"a quiet author"))
        assert sum(data.startswith(b"flood") for data in ears[0].judged) < 150


async def test_two_nodes_that_met_through_a_bootstrap_node_talk_directly(world: World) -> None:
    async with star(world, 2) as (hub, one, two):
        ears = await listen_all(hub, one, two)
        two.serve(PROTOCOL, echo)
        with pytest.raises(PeerUnreachable):
            await one.open_stream(two.snapshot().node_key, PROTOCOL)
        await two.publish(TOPIC, " ".join(two.snapshot().listening).encode())
        await until(lambda: any(data.startswith(b"/ip4/") for _, data in ears[1].heard))
        author, data = ears[1].heard[-1]
        one.learn_addresses(author, data.decode().split())
        stream = await one.open_stream(author, PROTOCOL)
        await stream.send(b"direct")
        assert await read_exactly(stream, 6) == b"direct"
        assert author in one.snapshot().peers
        await stream.close()


async def test_gossip_has_a_size_limit_and_one_reader_per_topic(world: World) -> None:
    async with world.node() as node:
        ear = Ear()
        await node.subscribe(TOPIC, ear.validate, ear.receive)
        with pytest.raises(ValueError, match="already"):
            await node.subscribe(TOPIC, ear.validate, ear.receive)
        with pytest.raises(ValueError, match="limit"):
            await node.publish(TOPIC, bytes(64 * 1024 + 1))


async def test_the_snapshot_names_the_node_and_where_it_can_be_dialled(world: World) -> None:
    async with world.node() as node:
        snapshot = node.snapshot()
        assert key_of(snapshot.peer_id) == snapshot.node_key
        for text in snapshot.listening:
            address = parse_address(text)
            assert address.peer == snapshot.node_key
            assert address.port > 0
        assert snapshot.listening
