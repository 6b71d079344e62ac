"""An endpoint with knowledge bases in a file of their own, vectors of words, and files read without a process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_harness import Endpoint, FakeKeys, Reply, serving

from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import open_store
from ryvion_node.market.fake import Script, says
from ryvion_node.proxy.access import Keys
from ryvion_node.proxy.knowledge.service import Knowledge

ROOT = "/api/v1/knowledge-bases"
BOUNDARY = "----------------------------9051914041544843365972754266"
ECHO = {"echo": says("a", "b")}


def form(*files: tuple[str, bytes], field: str = "file") -> bytes:
    """Files as multipart/form-data."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(slots=True)
class Shelf:
    """The endpoint, and what is behind it."""

    endpoint: Endpoint
    knowledge: Knowledge
    embedder: WordEmbedder
    ingest: Ingest

    async def ask(self, method: str, path: str, body: object = None, token: str = "sk-buyer", **headers: str) -> Reply:
        return await self.endpoint.ask(method, path, body, authorization=f"Bearer {token}", **headers)

    async def create(self, jurisdiction: str | None = None, token: str = "sk-buyer") -> str:
        """A knowledge base; its id."""
        body = {"name": "Ferries"} | ({} if jurisdiction is None else {"jurisdiction": jurisdiction})
        reply = await self.ask("POST", ROOT, body, token)
        assert reply.status == 201, reply.body
        return str(reply.json()["id"])

    async def upload(self, base: str, *files: tuple[str, bytes], token: str = "sk-buyer") -> Reply:
        """Send files, and do not wait for what comes of them."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return await self.ask("POST", f"{ROOT}/{base}/documents", form(*files), token, content_type=kind)

    async def add(self, base: str, **texts: str) -> dict[str, str]:
        """Text files, until searches find them; their ids by name."""
        ids = {}
        for name, text in texts.items():
            reply = await self.upload(base, (f"{name}.txt", text.encode()))
            assert reply.status == 202, reply.body
            ids[name] = str(reply.json()["id"])
        await self.settle()
        return ids

    async def settle(self) -> None:
        """Take all documents as far as they go."""
        while await self.ingest._step():
            pass

    async def disclosed(self, **asked: str) -> list[dict[str, Any]]:
        """What left the machine."""
        query = "&".join(f"{name}={value}" for name, value in asked.items())
        data = (await self.ask("GET", f"/api/v1/disclosures?{query}")).json()["data"]
        assert isinstance(data, list)
        return data


async def _read(data: bytes, filename: str) -> DocumentText:
    return read_document(data, filename)


@asynccontextmanager
async def opened_knowledge(folder: Path) -> AsyncIterator[tuple[Knowledge, WordEmbedder, Ingest]]:
    """Knowledge bases in a file of their own."""
    embedder = WordEmbedder()
    async with open_store(folder / "knowledge.db", clock_ms=lambda: 1_700_000_000_000) as store:
        knowledge = Knowledge(store, Search(store, embedder), lambda: 1_700_000_000_000)
        yield knowledge, embedder, Ingest(store, embedder, read=_read)


@asynccontextmanager
async def shelf(
    folder: Path, scripts: Mapping[str, Script] | None = None, keys: Keys | None = None
) -> AsyncIterator[Shelf]:
    """An endpoint whose market follows `scripts`."""
    async with (
        opened_knowledge(folder) as (knowledge, embedder, ingest),
        serving(ECHO if scripts is None else scripts, keys=keys or FakeKeys(), knowledge=knowledge) as endpoint,
    ):
        yield Shelf(endpoint, knowledge, embedder, ingest)
