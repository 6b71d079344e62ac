"""What the fake adds to the contract: death, partition and delay under a clock that jumps."""

from __future__ import annotations

import pytest
import trio

from ryvion_node.p2p.fake import FakeInternet
from ryvion_node.p2p.interface import PeerUnreachable, Stream, StreamBroken
from ryvion_protocol.schema import NodeKey

pytestmark = pytest.mark.virtual_time

ALICE, BOB, CAROL = (NodeKey(bytes([number]) * 32) for number in (1, 2, 3))
PROTOCOL = "/test/echo/1"


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


async def test_a_killed_node_breaks_its_streams_after_what_it_had_sent_and_comes_back_anew() -> None:
    internet = FakeInternet()
    ended: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.send(b"first words")
            await trio.sleep_forever()
        finally:
            ended.append("stopped")

    async with internet.running(ALICE, BOB) as (alice, bob):
        bob.serve(PROTOCOL, handler)
        stream = await alice.open_stream(BOB, PROTOCOL)
        await trio.sleep(1)
        internet.kill(BOB)
        assert await stream.receive() == b"first words"
        with pytest.raises(StreamBroken):
            await stream.receive()
        with pytest.raises(StreamBroken):
            await stream.send(b"?")
        with pytest.raises(PeerUnreachable):
            await alice.open_stream(BOB, PROTOCOL)
        assert alice.snapshot().peers == ()
        assert ended == ["stopped"]

        async with trio.open_nursery() as nursery:
            again = internet.node(BOB)
            again.serve(PROTOCOL, echo)
            await nursery.start(again.run)
            stream = await alice.open_stream(BOB, PROTOCOL)
            await stream.send(b"back")
            assert await stream.receive() == b"back"
            nursery.cancel_scope.cancel()


async def test_a_partition_cuts_streams_and_gossip_until_it_heals() -> None:
    internet = FakeInternet()
    heard: list[bytes] = []
    async with internet.running(ALICE, BOB, CAROL) as (alice, bob, carol):
        carol.serve(PROTOCOL, echo)
        for node in (bob, carol):
            await node.subscribe("t", lambda author, data: True, lambda author, data: heard.append(data))
        stream = await alice.open_stream(CAROL, PROTOCOL)
        internet.partition({ALICE, BOB}, {CAROL})
        with pytest.raises(StreamBroken):
            await stream.receive()
        with pytest.raises(PeerUnreachable):
            await alice.open_stream(CAROL, PROTOCOL)
        await alice.publish("t", b"one side")
        await trio.sleep(1)
        assert heard == [b"one side"]
        internet.heal()
        await alice.publish("t", b"both")
        await trio.sleep(1)
        assert heard == [b"one side", b"both", b"both"]
        await (await alice.open_stream(CAROL, PROTOCOL)).close()


async def test_delay_applies_to_every_hop() -> None:
    internet = FakeInternet(delay_s=0.25)
    heard_s: list[float] = []
    async with internet.running(ALICE, BOB) as (alice, bob):
        bob.serve(PROTOCOL, echo)
        began_s = trio.current_time()
        stream = await alice.open_stream(BOB, PROTOCOL)
        assert trio.current_time() - began_s == pytest.approx(0.5)
        await stream.send(b"x")
        assert await stream.receive() == b"x"
        assert trio.current_time() - began_s == pytest.approx(1.0)
        await bob.subscribe("t", lambda author, data: True, lambda author, data: heard_s.append(trio.current_time()))
        published_s = trio.current_time()
        await alice.publish("t", b"news")
        await trio.sleep(1)
        assert heard_s == [pytest.approx(published_s + 0.25)]


async def test_a_stream_broken_while_bytes_are_under_way_does_not_wait_for_them() -> None:
    internet = FakeInternet()
    async with internet.running(ALICE, BOB) as (alice, bob):
        bob.serve(PROTOCOL, echo)
        stream = await alice.open_stream(BOB, PROTOCOL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_broken, stream)
            await trio.sleep(1)
            internet.kill(BOB)


async def _expect_broken(stream: Stream) -> None:
    with pytest.raises(StreamBroken):
        await stream.receive()
