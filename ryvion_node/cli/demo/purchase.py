"""Buying a streamed answer with the official OpenAI client, and reading the market's story from the stream itself."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import openai
from openai.types.chat import ChatCompletionChunk

from ryvion_node.cli.demo.events import (
    Bid,
    Checked,
    DemoEvent,
    ReceiptReceived,
    RequestRefused,
    RequestSent,
    Settled,
    TextReceived,
    Winner,
)

REQUEST_TIMEOUT_S = 60.0
MAX_TOKENS = 160
"""The bundled models' longest documented answers have 120."""


@dataclass(slots=True)
class Answer:
    """What a purchase brought, filled while its events go by."""

    job_id: str = ""
    """Empty when nobody took the job."""
    jurisdiction: str = ""
    text: str = ""
    settled: Settled | None = None
    refused: RequestRefused | None = None


class Buyer:
    """The OpenAI client, pointed at the requester's endpoint. It takes no proxy from the environment: all is local."""

    def __init__(self, endpoint: str, api_key: str, model: str, node_names: dict[str, str]) -> None:
        transport = openai.DefaultHttpxClient(trust_env=False)
        self._client = openai.OpenAI(
            base_url=endpoint, api_key=api_key, http_client=transport, max_retries=0, timeout=REQUEST_TIMEOUT_S
        )
        self._model = model
        self._node_names = node_names

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def buy(self, number: int, prompt: str, jurisdiction: str | None) -> Generator[DemoEvent, None, Answer]:
        """One streamed chat completion at temperature 0; every event of it, with any error as the last."""
        answer = Answer()
        yield RequestSent(number, self._model, prompt, jurisdiction)
        sent_at = time.monotonic()
        try:
            with self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                max_tokens=MAX_TOKENS,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={} if jurisdiction is None else {"jurisdiction": jurisdiction},
            ) as stream:
                yield from self._follow(stream, sent_at, answer)
        except openai.APIStatusError as exc:
            answer.refused = RequestRefused(exc.status_code, str(exc.code), _plain_message(exc))
        except openai.APIError as exc:
            answer.refused = RequestRefused(0, str(exc.code or type(exc).__name__), exc.message)
        if answer.refused is not None:
            yield answer.refused
        return answer

    def _follow(self, stream: Iterator[ChatCompletionChunk], sent_at: float, answer: Answer) -> Iterator[DemoEvent]:
        last: dict[str, Any] = {}
        first_at, ended_at, finish_reason, usage = 0.0, 0.0, "", (0, 0)
        for chunk in stream:
            now = time.monotonic()
            if chunk.usage is not None:
                usage = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            if not chunk.choices:
                continue
            ryvion: dict[str, Any] = (chunk.model_extra or {}).get("ryvion") or {}
            choice = chunk.choices[0]
            if "route" in ryvion and not answer.job_id:
                yield from self._decision(ryvion, answer)
            if choice.delta.content:
                first_at = first_at or now
                answer.text += choice.delta.content
                yield TextReceived(choice.delta.content, int((now - sent_at) * 1000))
            if choice.finish_reason is not None:
                last, finish_reason, ended_at = ryvion, choice.finish_reason, now
        if last:
            yield from _evidence(last)
            answer.settled = _settled(last, usage, finish_reason, sent_at, first_at, ended_at)
            yield answer.settled

    def _decision(self, ryvion: dict[str, Any], answer: Answer) -> Iterator[DemoEvent]:
        """Who bid what, and who won."""
        answer.job_id, answer.jurisdiction = ryvion["job_id"], ryvion["jurisdiction"]
        route = ryvion["route"]
        for candidate in route["candidates"]:
            yield Bid(self._name(candidate["node_key"]), candidate)
        yield Winner(
            self._name(ryvion["node_id"]),
            ryvion["node_id"],
            ryvion["gpu"],
            ryvion["jurisdiction"],
            ryvion["location"],
            route["explanation"],
            route["decided_ms"],
        )

    def _name(self, node_key: str) -> str:
        return self._node_names.get(node_key, node_key[:12])


def _evidence(ryvion: dict[str, Any]) -> Iterator[DemoEvent]:
    yield ReceiptReceived(ryvion["receipt"])
    for check in ryvion["checks"]:
        yield Checked(check["name"], check["outcome"], check["detail"])


def _settled(
    ryvion: dict[str, Any], usage: tuple[int, int], reason: str, sent_at: float, first_at: float, ended_at: float
) -> Settled:
    prompt_tokens, completion_tokens = usage
    streaming_s = ended_at - first_at
    measurable = completion_tokens > 1 and first_at > 0 and streaming_s > 0
    return Settled(
        ryvion["accepted"],
        ryvion["cost_microcredits"],
        prompt_tokens,
        completion_tokens,
        int((first_at - sent_at) * 1000) if first_at else 0,
        round((completion_tokens - 1) / streaming_s, 1) if measurable else None,
        reason,
    )


def _plain_message(error: openai.APIStatusError) -> str:
    """The endpoint's own sentence, without what the client puts around it."""
    match error.body:
        case {"message": str(message)} | {"error": {"message": str(message)}}:
            return message
    return error.message
