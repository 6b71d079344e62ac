"""An endpoint on a real socket before a scripted market, and a client that shows the bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ryvion_node.keys import NO_BUDGETS, KeyLimits
from ryvion_node.market.fake import FakeMarket, Script
from ryvion_node.preferences import ANY_OFFER, KnowledgeAssurance, Preferences
from ryvion_node.proxy.access import Keys
from ryvion_node.proxy.idempotency import Progress
from ryvion_node.proxy.knowledge.service import Knowledge
from ryvion_node.proxy.receipts import StoredReceipt
from ryvion_node.proxy.server import ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import MemoryVault, Vault

HELLO = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    scope: str = "buyer"
    jurisdictions: tuple[str, ...] = ()
    limits: KeyLimits = NO_BUDGETS
    preferences: Preferences = ANY_OFFER
    knowledge_assurance: KnowledgeAssurance = "signed"


class FakeKeys:
    """Four keys, by scope, and one that is bound to a place."""

    def __init__(self) -> None:
        self.by_token = {
            "sk-buyer": Key("k1"),
            "sk-reader": Key("k2", "read-only"),
            "sk-writer": Key("k3", "write-only"),
            "sk-operator": Key("k4", "operator"),
            "sk-odd": Key("k5", "no-such-scope"),
            "sk-canada": Key("k6", "buyer", ("CA", "US")),
        }

    async def authenticate(self, token: str) -> Key | None:
        return self.by_token.get(token)


class FakeReceipts:
    def __init__(self, market: FakeMarket) -> None:
        self.market = market
        self.stored: list[StoredReceipt] = []

    async def of_completion(self, completion_id: str) -> tuple[StoredReceipt, ...]:
        return tuple(receipt for receipt in self.stored if receipt.completion_id == completion_id)

    async def progress(self, completion_id: str) -> Progress:
        if completion_id in self.market.running:
            return "running"
        cost = self.market.costs.get(completion_id)
        return "nothing" if cost is None else "paid" if cost else "free"

    async def by_cid(self, cid: str) -> StoredReceipt | None:
        return next((receipt for receipt in self.stored if receipt.cid == cid), None)


@dataclass(slots=True)
class Reply:
    """One HTTP answer; `body` is without chunked framing, `complete` tells whether its end came."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = False

    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, str | None]:
        error = self.json()["error"]
        assert isinstance(error, dict)
        assert set(error) == {"message", "type", "param", "code"}
        return error

    def events(self) -> list[str]:
        """The data of each server-sent event, comments as `:...`."""
        assert self.body.endswith(b"\n\n") or not self.body
        return [part.removeprefix("data: ") for part in self.body.decode().split("\n\n")[:-1]]


@dataclass(slots=True)
class Endpoint:
    url: str
    market: FakeMarket
    receipts: FakeReceipts
    stop: trio.CancelScope
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def connect(self) -> Client:
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port), self.authority)

    async def ask(self, method: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """One request on its own connection; keyword headers as `content_type=`; None leaves a default one out."""
        client = await self.connect()
        async with client.stream:
            await client.send(method, path, body, **headers)
            return await client.reply()

    async def chat(self, model: str = "echo", token: str = "sk-buyer", **extra: object) -> Reply:
        body = {"model": model, "messages": HELLO} | extra
        return await self.ask("POST", "/v1/chat/completions", body, authorization=f"Bearer {token}")


class Client:
    """A raw HTTP/1.1 client on one connection."""

    def __init__(self, stream: trio.SocketStream, authority: str) -> None:
        self.stream = stream
        self._authority = authority
        self._buffer = bytearray()

    async def send(self, method: str, path: str, body: object = None, **headers: str | None) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given: dict[str, str | None] = {"host": self._authority}
        if body is not None:
            given |= {"content-type": "application/json", "content-length": str(len(data))}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items() if v is not None), "", ""]
        await self.stream.send_all("\r\n".join(lines).encode("latin-1") + data)

    async def chat(self, model: str, **extra: object) -> None:
        body = {"model": model, "messages": HELLO} | extra
        await self.send("POST", "/v1/chat/completions", body, authorization="Bearer sk-buyer")

    async def head(self) -> Reply:
        """Status and headers."""
        raw = (await self._until(b"\r\n\r\n")).decode("latin-1")
        status, *lines = raw.split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines]
        return Reply(int(status.split()[1]), {name.lower(): value for name, value in pairs})

    async def chunk(self) -> bytes:
        """One HTTP chunk; empty at the end of the body."""
        size = int(await self._until(b"\r\n"), 16)
        data = await self._exactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def event(self) -> str:
        """The data of one server-sent event that came in a chunk of its own."""
        data = await self.chunk()
        assert data.endswith(b"\n\n")
        assert data.count(b"\n\n") == 1
        return data.decode().removeprefix("data: ").removesuffix("\n\n")

    async def reply(self) -> Reply:
        """A whole answer, or what came of it before the connection ended."""
        reply = await self.head()
        try:
            if "content-length" in reply.headers:
                reply.body = await self._exactly(int(reply.headers["content-length"]))
            elif reply.headers.get("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    reply.body += chunk
            reply.complete = True
        except EOFError:
            pass
        return reply

    async def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            await self._more()
        return self._take(end + len(mark))

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._buffer += data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


@asynccontextmanager
async def serving(
    scripts: Mapping[str, Script],
    settings: Settings | None = None,
    keys: Keys | None = None,
    vault: Vault | None = None,
    knowledge: Knowledge | None = None,
) -> AsyncIterator[Endpoint]:
    """An endpoint whose market follows `scripts`; stopped, and seen to end, when the context is left."""
    market = FakeMarket(scripts)
    receipts = FakeReceipts(market)
    server = ProxyServer(
        market,
        keys or FakeKeys(),
        receipts,
        settings or Settings(port=0),
        vault or MemoryVault(),
        knowledge=knowledge,
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(server.run)
            endpoint = Endpoint(url, market, receipts, nursery.cancel_scope)
            yield endpoint
            nursery.cancel_scope.cancel()
    assert market.open_jobs == 0
