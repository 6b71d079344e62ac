"""An OpenAI-compatible server of our own that plays what a test wants, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import h11
import trio

Body = dict[str, Any]
Step = bytes | Literal["stall", "wait", "hang up"]
WAIT_S: Final = 0.5

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Play:
    """A reply: its body in steps, each sent by itself; `stall` waits for ever, `wait` for WAIT_S, `hang up` cuts the connection."""

    steps: Sequence[Step]
    status: int = 200
    media_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Body


def event(data: object) -> bytes:
    return b"data: " + (data.encode() if isinstance(data, str) else json.dumps(data).encode()) + b"\n\n"


def chunk(delta: Mapping[str, object] | None = None, finish: str | None = None, **choice: object) -> bytes:
    """One chunk of a streamed completion."""
    return event({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **choice}]})


def usage(prompt: int, completion: int, **more: object) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}})


def said(*texts: str, finish: str = "stop") -> Play:
    """A whole, well-formed answer."""
    pieces = [chunk({"content": text}) for text in texts]
    return Play(
        [chunk({"role": "assistant", "content": ""}), *pieces, chunk(finish=finish), usage(7, len(texts)), DONE]
    )


def reply(value: object, status: int = 200) -> Play:
    return Play([json.dumps(value).encode()], status, "application/json")


def refused(status: int, message: str, **error: object) -> Play:
    return reply({"error": {"message": message, **error}}, status)


@dataclass(slots=True)
class ScriptedServer:
    """`job` answers the test's own jobs, whose last user turn is "go"; all others, the node's trials, go well."""

    job: Callable[[Body], Play] = lambda _: said("fine")
    models: Sequence[Body] = ({"id": "served", "owned_by": "vllm", "max_model_len": 512},)
    routes: dict[str, Callable[[Body], Play]] = field(default_factory=dict)
    trial: Callable[[Body], Play] | None = None
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    jobs_open: int = 0
    most_open: int = 0
    dropped: int = 0
    """Replies whose reader went away."""
    sent_bytes: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def jobs(self) -> list[Body]:
        """Bodies of the test's own jobs."""
        return [asked.body for asked in self.asked if _is_job(asked)]

    async def idle(self) -> None:
        """Wait until none of the test's jobs is open."""
        while self.jobs_open:
            await self.changed.wait()

    def count_job(self, difference: int) -> None:
        self.jobs_open += difference
        self.most_open = max(self.most_open, self.jobs_open)
        self.changed.set()
        self.changed = trio.Event()

    def answer(self, asked: Asked) -> Play:
        if asked.path in self.routes:
            return self.routes[asked.path](asked.body)
        if asked.path == "/v1/models":
            return reply({"object": "list", "data": list(self.models)})
        if asked.path != "/v1/chat/completions":
            return refused(404, "no such path")
        if _is_job(asked):
            return self.job(asked.body)
        return (self.trial or plausible)(asked.body)


def plausible(body: Body) -> Play:
    """What a capable server answers to the node's trials."""
    delta: Body = {"content": "ok"}
    if body.get("tool_choice") == "required":
        delta = {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}]}
    chance = {"token": "ok", "logprob": -0.1, "bytes": [111, 107], "top_logprobs": []}
    logprobs = {"content": [chance]} if body.get("logprobs") else None
    return Play([chunk(delta, logprobs=logprobs), chunk(finish="length"), usage(5, 1), DONE])


@asynccontextmanager
async def serving(server: ScriptedServer, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """With `tls` its URL is https://localhost."""

    async def handle(stream: trio.SocketStream) -> None:
        await _handle(server, stream if tls is None else trio.SSLStream(stream, tls, server_side=True))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, server.port, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def _is_job(asked: Asked) -> bool:
    turns = asked.body.get("messages") or [{}]
    return asked.path == "/v1/chat/completions" and "go" in [turn.get("content") for turn in turns[-2:]]


async def _handle(server: ScriptedServer, stream: trio.abc.Stream) -> None:
    asked = await _request(stream)
    if asked is None:
        return
    server.asked.append(asked)
    play = server.answer(asked)
    is_job = _is_job(asked)
    server.count_job(+is_job)
    try:
        await _play(server, stream, play)
    finally:
        server.count_job(-is_job)


async def _request(stream: trio.abc.Stream) -> Asked | None:
    machine = h11.Connection(h11.SERVER)
    head: h11.Request | None = None
    body = b""
    while True:
        try:
            event = machine.next_event()
        except h11.RemoteProtocolError:
            return None
        match event:
            case h11.NEED_DATA:
                try:
                    machine.receive_data(bytes(await stream.receive_some(65536)))
                except trio.BrokenResourceError:
                    return None
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert head is not None
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Asked(head.target.decode(), headers, json.loads(body) if body else {})
            case _:
                return None


async def _play(server: ScriptedServer, stream: trio.abc.Stream, play: Play) -> None:
    machine = h11.Connection(h11.SERVER)
    machine.receive_data(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    machine.next_event()
    head = h11.Response(
        status_code=play.status, headers=[("content-type", play.media_type), *play.headers.items()], reason=b""
    )
    try:
        await stream.send_all(machine.send(head) or b"")
        for step in play.steps:
            match step:
                case "stall":
                    await _until_dropped(stream)
                case "wait":
                    await trio.sleep(WAIT_S)
                case "hang up":
                    return
                case bytes():
                    await stream.send_all(machine.send(h11.Data(data=step)) or b"")
                    server.sent_bytes += len(step)
        await stream.send_all(machine.send(h11.EndOfMessage()) or b"")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        server.dropped += 1


async def _until_dropped(stream: trio.abc.Stream) -> None:
    while await stream.receive_some(1024):
        pass
    raise trio.BrokenResourceError
