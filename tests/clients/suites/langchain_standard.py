"""LangChain's own standard integration tests, pointed at us.

Those about tools and formats meet mock-tools, which calls and fills by rule: they prove what passes through the endpoint,
not that a model has a skill. All others meet both kinds of model. What is left out:
images, PDFs, audio and Anthropic's content blocks, because only text is traded; timing with recorded answers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import ContextOverflowError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """For all tests: LangChain keeps one pool of connections for all its models, which belongs to a loop."""
    yield  # noqa: PT022 - the loop lives as long as the fixture does


class StandardTests(ChatModelIntegrationTests):
    """What holds for every model that we sell."""

    name: str

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.name, "max_retries": 0, "max_tokens": 200, "stream_usage": True}


class TestScripted(StandardTests):
    name = "mock-tools"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "mock-echo"


class TestScriptedFormatsByTools(TestScripted):
    """Structured output by a forced call in place of `response_format`."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "function_calling"}


class TestScriptedResponses(TestScripted):
    """The same by /v1/responses, which LangChain speaks when it is told to."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}


class TestReal(StandardTests):
    """A model that answers by itself, but is too small to choose tools, and never ends a text that a schema does not."""

    name = "ryvion-tiny"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "temperature": 0}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return "mock-echo"

    @property
    def supported_usage_metadata_details(self) -> dict[str, Any]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = ChatOpenAI(**self.chat_model_params, streaming=stream)
        model.invoke("What is the capital of France?")
        return model.invoke("What is the capital of France?")


def test_a_full_context_is_langchains_own_error() -> None:
    with pytest.raises(ContextOverflowError):
        ChatOpenAI(model="mock-echo").invoke("word " * 9000)


def test_a_broken_stream_raises() -> None:
    with pytest.raises(openai.APIError):
        list(ChatOpenAI(model="mock-drop", max_retries=0).stream("one two three"))


@pytest.mark.parametrize("stream", [False, True])
def test_our_parameters_pass_and_receipts_are_found_by_the_answers_id(stream: bool) -> None:
    """LangChain drops `ryvion` from answers and the id from streams; it keeps the headers, when it is told to."""
    model = ChatOpenAI(
        model="mock-echo", extra_body={"jurisdiction": "EU"}, streaming=stream, include_response_headers=True
    )
    about = model.invoke("one two three").response_metadata
    completion_id = f"chatcmpl-{about['headers']['x-ryvion-job-id']}" if stream else about["id"]
    root = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
    found = httpx.get(
        f"{root}/api/v1/receipts",
        params={"completion_id": completion_id},
        headers={"x-api-key": os.environ["READ_ONLY_KEY"]},
    ).json()["data"]
    assert [receipt["accepted"] for receipt in found] == [True]


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "ryvion-embed-tiny", "check_embedding_ctx_length": False}
