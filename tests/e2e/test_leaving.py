"""Whoever leaves in the middle of an answer, the others stop within a second and settle what was delivered, no more."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import pytest

from ryvion_node.cli.demo.network import DemoNode
from ryvion_node.cli.offers import fetch_offers
from ryvion_node.ledger.records import JobRecord
from tests.e2e.live import LiveMarket, live_market, wait_until, workers_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MOST_TOKENS: Final = 1500
"""Many seconds on the slow model: what is delivered shows that it was stopped."""
SOON_S: Final = 1.0
WORK_TICKS: Final = 20
"""Hundredths of a second, as a rule."""
IDLE_S: Final = 0.3
"""How long a worker is watched for doing nothing."""
TEXT: Final = re.compile(rb'"content": ?" ')
"""In a chunk with text; the first one, of the role, has none."""
CLIENT: Final = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(sys.stdin.buffer.read())
while data := connection.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, slow_model: Path) -> Iterator[LiveMarket]:
    """A seller in Germany and one in Canada that will be stopped; a buyer and one that will be killed."""
    with live_market(tmp_path_factory.mktemp("leaving")) as running:
        running.start("bootstrap").wait_until_ready()
        running.sell("seller", "DE", "5.00", str(slow_model))
        running.sell("stopped", "CA", "5.00", str(slow_model))
        running.buy("killed")
        running.buy()
        running.ready(offers=2)
        yield running


def connect(
    market: LiveMarket, buyer: str = "buyer", *, receive_bytes: int | None = None, **changes: object
) -> socket.socket:
    """A connection on which an answer was asked for."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(10)
    connection.connect(address_of(market, buyer))
    connection.sendall(request_of(market, buyer, **changes))
    return connection


def address_of(market: LiveMarket, buyer: str) -> tuple[str, int]:
    """Where a buyer's endpoint listens."""
    url = httpx.URL(str(market.nodes[buyer].ready["endpoint"]))
    assert url.port is not None
    return url.host, url.port


def request_of(market: LiveMarket, buyer: str, **changes: object) -> bytes:
    """A whole HTTP request for a long answer, of a seller in Germany unless told otherwise."""
    asked = {"model": "slow", "messages": [{"role": "user", "content": "Tell me."}], "stream": True, "temperature": 0}
    body = json.dumps(asked | {"max_tokens": MOST_TOKENS, "jurisdiction": "DE"} | changes)
    host, port = address_of(market, buyer)
    headers = {
        "host": f"{host}:{port}",
        "authorization": f"Bearer {market.key('buyer', buyer)}",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n{body}".encode()


def read_text(receive: Callable[[], bytes]) -> int:
    """Read until some text has come; returns how many chunks had some."""
    heard = b""
    while len(TEXT.findall(heard)) < 3:
        data = receive()
        assert data, f"the answer ended: {heard[-500:]!r}"
        heard += data
    return len(TEXT.findall(heard))


def running_job(market: LiveMarket) -> JobRecord:
    """The one that the seller is at."""

    def jobs() -> list[JobRecord]:
        return [job for job in market.jobs("seller", "sold") if job.state == "running"]

    wait_until(lambda: len(jobs()) == 1, "the job began")
    return jobs()[0]


def cpu_ticks(node: DemoNode) -> int:
    """CPU time that a node's workers have used, in the kernel's ticks."""
    used = 0
    for pid in workers_of(node):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used


def wait_for_work(market: LiveMarket) -> int:
    """Wait until the seller's worker has made some text, of which a client that wants it whole hears nothing."""
    before = cpu_ticks(market.nodes["seller"])
    wait_until(lambda: cpu_ticks(market.nodes["seller"]) - before > WORK_TICKS, "the worker works")
    return 0


def settled(market: LiveMarket, job: JobRecord, left_at: float, state: str = "accepted") -> JobRecord:
    """The seller's record once the job is over: in time, and with a worker that does nothing any more."""

    def now() -> JobRecord:
        return next(one for one in market.jobs("seller", "sold") if one.job_id == job.job_id)

    wait_until(lambda: now().state != "running", "the executor stopped", left_at + SOON_S - time.monotonic())
    node = market.nodes["seller"]
    before = cpu_ticks(node)
    time.sleep(IDLE_S)
    assert cpu_ticks(node) - before <= 1
    wait_until(lambda: now().state == state, f"the job is {state}")
    return now()


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close_half(connection: socket.socket) -> None:
    """As `nc` does at the end of its input; nothing is heard of a client any more."""
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [close, reset, close_half])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_goes_stops_the_executor_and_pays_for_what_came(
    market: LiveMarket, leave: Callable[[socket.socket], None], stream: bool
) -> None:
    with closing(connect(market, stream=stream)) as connection:
        job = running_job(market)
        heard = read_text(lambda: connection.recv(65536)) if stream else wait_for_work(market)
        left_at = time.monotonic()
        leave(connection)
        sold = settled(market, job, left_at)
    assert heard <= sold.completion_units < MOST_TOKENS / 2
    check_both_ledgers(market, sold)


def test_a_client_that_stopped_reading_long_ago_and_goes_is_no_different(market: LiveMarket) -> None:
    asked = {"logprobs": True, "top_logprobs": 20}  # kilobytes with each token
    with closing(connect(market, receive_bytes=4096, **asked)) as connection:
        job = running_job(market)
        wait_until(lambda: is_full(connection), "nothing more fits")
        left_at = time.monotonic()
        close(connection)
        sold = settled(market, job, left_at)
    assert 0 < sold.completion_units < MOST_TOKENS / 2
    check_both_ledgers(market, sold)


def test_a_killed_client_stops_the_executor(market: LiveMarket) -> None:
    command = [sys.executable, "-c", CLIENT, *map(str, address_of(market, "buyer"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(request_of(market, "buyer"))
        client.stdin.close()
        stdout = client.stdout
        heard = read_text(lambda: stdout.read(65536))
        job = running_job(market)
        left_at = time.monotonic()
        client.kill()
    sold = settled(market, job, left_at)
    assert heard <= sold.completion_units < MOST_TOKENS / 2
    check_both_ledgers(market, sold)


def check_both_ledgers(market: LiveMarket, sold: JobRecord) -> None:
    def bought() -> list[JobRecord]:
        return [job for job in market.jobs("buyer", "bought") if job.job_id == sold.job_id]

    wait_until(lambda: [job.state for job in bought()] == ["accepted"], "settled by the buyer")
    (job,) = bought()
    assert (job.completion_units, job.cost_microcredits) == (sold.completion_units, sold.cost_microcredits)
    assert job.cost_microcredits > 0


def is_full(connection: socket.socket) -> bool:
    """Is something there to be read, and does no more come?"""
    before = len(connection.recv(65536, socket.MSG_PEEK))
    time.sleep(IDLE_S)
    return before == len(connection.recv(65536, socket.MSG_PEEK))


def test_a_killed_requester_stops_the_executor_which_keeps_its_evidence(market: LiveMarket) -> None:
    wait_until(lambda: len(fetch_offers(market.nodes["killed"].paths)) == 2, "it heard the offers, too")
    with closing(connect(market, "killed")) as connection:
        heard = read_text(lambda: connection.recv(65536))
        job = running_job(market)
        left_at = time.monotonic()
        market.kill("killed")
        sold = settled(market, job, left_at, state="delivered")
    assert heard <= sold.completion_units < MOST_TOKENS / 2


def test_a_stopped_executor_is_an_error_at_once_and_bills_nothing(market: LiveMarket) -> None:
    process = market.nodes["stopped"].process
    with closing(connect(market, jurisdiction="CA")) as connection:
        read_text(lambda: connection.recv(65536))
        left_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        told = b""
        while b'"error"' not in told:
            data = connection.recv(65536)
            assert data, "the answer ended as if it were whole"
            told += data
        assert time.monotonic() - left_at < SOON_S
    assert b'"node_failed"' in told
    assert b'"finish_reason":"' not in told.replace(b" ", b"")
    assert process.wait(10) == 0
    assert not [job for job in market.jobs("stopped", "sold") if job.cost_microcredits]
    assert not [job for job in market.jobs("buyer", "bought") if job.state == "running"]
