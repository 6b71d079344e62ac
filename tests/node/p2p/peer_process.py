"""A node in a process of its own, for tests that kill it: echoes streams and keeps saying that it is alive.

python -m tests.node.p2p.peer_process SEED_HEX LISTEN
"""

from __future__ import annotations

import sys

import trio

from ryvion_node.p2p.interface import Stream
from ryvion_node.p2p.libp2p_network import Libp2pNetwork

PROTOCOL = "/test/echo/1"
TOPIC = "test/topic"


async def _echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


async def _main(seed_hex: str, listen: str) -> None:
    network = Libp2pNetwork(bytes.fromhex(seed_hex), [listen])
    network.serve(PROTOCOL, _echo)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        await network.subscribe(TOPIC, lambda author, data: True, lambda author, data: None)
        print(network.snapshot().listening[0], flush=True)
        while True:
            await network.publish(TOPIC, b"alive")
            await trio.sleep(0.1)


if __name__ == "__main__":
    trio.run(_main, *sys.argv[1:])
