"""The official client, pointed at an endpoint under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
from proxy_harness import Endpoint


@asynccontextmanager
async def async_client(endpoint: Endpoint, key: str = "sk-buyer") -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{endpoint.url}/v1", api_key=key, max_retries=0, http_client=http
    ) as client:
        yield client


def sync_client(endpoint: Endpoint) -> openai.OpenAI:
    http = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="sk-buyer", max_retries=0, http_client=http)
