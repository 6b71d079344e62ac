"""The description at /openapi.json: valid, complete, true of real answers, and no way to make the endpoint fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
import requests
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, settings
from knowledge_harness import ROOT, opened_knowledge, shelf
from openapi_schema_validator import OAS31Validator
from proxy_harness import FakeKeys, FakeReceipts, serving
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from ryvion_node.market.fake import FakeMarket, Script, calls, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy.app import create_app
from ryvion_node.proxy.metrics import Metrics
from ryvion_node.proxy.openapi import description
from ryvion_node.proxy.openapi_operations import EVENTS, OPERATIONS
from ryvion_node.proxy.requests import IGNORED, NOT_HONOURED, ChatRequest
from ryvion_node.proxy.server import ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import MemoryVault

DOCUMENT = description()
SCRIPTS = {
    "echo": says("a", "b"),
    "thinks": Script((Piece(reasoning="hm"), Piece("yes"))),
    "calls": Script(calls("look", "{}"), finish_reason="tool_calls"),
    "disputed": Script((Piece("x"),), failed_check=True),
}


def test_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    openapi_spec_validator.validate(DOCUMENT)


def test_every_route_is_described_and_nothing_else() -> None:
    market = FakeMarket({})
    app = create_app(market, FakeKeys(), FakeReceipts(market), Settings(), MemoryVault(), Metrics(), [1])
    served = {
        (method.lower(), route.path.replace(":path", ""))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(operation.method, operation.path) for operation in OPERATIONS}


def test_request_schema_is_the_one_that_validates() -> None:
    described = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    assert described.keys() == ChatRequest.model_fields.keys() | IGNORED | NOT_HONOURED.keys()
    assert described["modalities"]["enum"] == [None, ["text"]]


async def test_it_is_served_without_a_key() -> None:
    async with serving({}) as endpoint:
        reply = await endpoint.ask("GET", "/openapi.json")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json() == json.loads(json.dumps(DOCUMENT))


def conforms(value: object, name: str) -> None:
    """Is it what the description says of that name?"""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    OAS31Validator(schema).validate(value)


REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
}


@pytest.mark.parametrize("model", SCRIPTS)
@pytest.mark.parametrize("path", REQUESTS)
async def test_answers_and_events_are_as_described(path: str, model: str) -> None:
    operation = next(operation for operation in OPERATIONS if operation.path == path)
    async with serving(SCRIPTS) as endpoint:
        body = REQUESTS[path] | {"model": model}
        whole = await endpoint.ask("POST", path, body, authorization="Bearer sk-buyer")
        conforms(whole.json(), operation.answers["application/json"] or "")
        streamed = await endpoint.ask("POST", path, body | {"stream": True}, authorization="Bearer sk-buyer")
        lines = streamed.body.decode().splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert events
        for event in events:
            conforms(event, operation.answers[EVENTS] or "")


@pytest.mark.parametrize(
    ("path", "several"), [("/v1/chat/completions", {"n": 2}), ("/v1/completions", {"prompt": ["a", "b"]})]
)
async def test_answers_with_several_choices_are_as_described(path: str, several: dict[str, Any]) -> None:
    operation = next(operation for operation in OPERATIONS if operation.path == path)
    async with serving(SCRIPTS) as endpoint:
        body = REQUESTS[path] | {"model": "echo"} | several
        conforms(body, operation.body)
        whole = await endpoint.ask("POST", path, body, authorization="Bearer sk-buyer")
        conforms(whole.json(), operation.answers["application/json"] or "")
        conforms(whole.json()["ryvion"], "Jobs")


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_are_as_described(encoding: str) -> None:
    async with serving(SCRIPTS) as endpoint:
        body = {"model": "echo", "input": ["a", "b"], "encoding_format": encoding}
        conforms(body, "EmbeddingRequest")
        reply = await endpoint.ask("POST", "/v1/embeddings", body, authorization="Bearer sk-buyer")
        conforms(reply.json(), "EmbeddingList")


async def test_other_answers_are_as_described() -> None:
    async with serving(SCRIPTS) as endpoint:

        async def get(path: str) -> dict[str, Any]:
            return dict((await endpoint.ask("GET", path, authorization="Bearer sk-buyer")).json())

        conforms(await get("/v1/models"), "ModelList")
        conforms(await get("/v1/models/echo"), "Model")
        conforms(await get("/v1/models/nobody's"), "Error")
        conforms(await get("/api/v1/offers"), "OfferList")
        conforms(await get("/health"), "Health")
        routed = await endpoint.ask("POST", "/api/v1/route", {"model": "echo"}, authorization="Bearer sk-buyer")
        conforms(routed.json(), "Route")


async def test_answers_about_knowledge_bases_are_as_described(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    async with shelf(folder) as there:
        base = await there.create("EU")
        await there.upload(base, ("notes.md", b"# Lund\n\nThe ferry leaves at 7:45."), ("broken.pdf", b"%PDF no"))
        await there.settle()
        conforms((await there.upload(base, ("more.txt", b"more"))).json(), "UploadedDocuments")
        conforms((await there.upload(base, ("a.txt", b"a"), ("b.txt", b"b"))).json(), "UploadedDocuments")
        found = await there.ask("POST", f"{ROOT}/{base}/search", {"query": "ferry"})
        conforms(found.json(), "SearchResults")
        assert found.json()["results"]
        body = REQUESTS["/v1/chat/completions"] | {"model": "echo", "knowledge_base": base}
        conforms(body, "ChatRequest")
        whole = await there.ask(
            "POST", "/v1/chat/completions", body | {"messages": [{"role": "user", "content": "ferry"}]}
        )
        conforms(whole.json(), "ChatCompletion")
        for path, name in (
            (ROOT, "KnowledgeBaseList"),
            (f"{ROOT}/{base}", "KnowledgeBase"),
            (f"{ROOT}/{base}/documents", "DocumentList"),
            ("/api/v1/disclosures", "DisclosureList"),
        ):
            conforms((await there.ask("GET", path)).json(), name)
        conforms((await there.ask("DELETE", f"{ROOT}/{base}")).json(), "Deleted")


# --- fuzzing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Live:
    """An endpoint in a thread of its own, since the fuzzer's client blocks."""

    url: str
    token: trio.lowlevel.TrioToken
    stop: trio.CancelScope


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, requests.Session]]:
    """The endpoint's URL, and one client for all that is sent."""
    folder = tmp_path_factory.mktemp("live") / "home"
    folder.mkdir(mode=0o700)
    started: list[Live] = []
    ready = threading.Event()

    async def serve() -> None:
        market = FakeMarket(SCRIPTS | {"breaks": Script((Piece("x"), MarketError("node_failed", "gone")))})
        async with opened_knowledge(folder) as (knowledge, _, _), trio.open_nursery() as nursery:
            server = ProxyServer(
                market, FakeKeys(), FakeReceipts(market), Settings(port=0), MemoryVault(), knowledge=knowledge
            )
            url = await nursery.start(server.run)
            started.append(Live(url, trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(10)
        with requests.Session() as session:
            session.trust_env = False
            yield started[0].url, session
    finally:
        started[0].token.run_sync_soon(started[0].stop.cancel)
        thread.join(10)
    assert not thread.is_alive()


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


FUZZING = settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def send(case: schemathesis.Case[Any], live: tuple[str, requests.Session]) -> None:
    url, session = live
    headers = {"authorization": "Bearer sk-buyer"}
    if "knowledge_base" in case.path_parameters and case.method != "DELETE":
        root = f"{url}/api/v1/knowledge-bases"
        bases = session.get(root, headers=headers).json()["data"]
        base = bases[0] if bases else session.post(root, json={"name": "n"}, headers=headers).json()
        case.path_parameters["knowledge_base"] = base["id"]
    case.call_and_validate(base_url=url, session=session, headers=headers, checks=CHECKS, timeout=10)


@SCHEMA.parametrize()
@FUZZING
def test_whatever_is_sent_the_endpoint_does_not_fail(
    case: schemathesis.Case[Any], live: tuple[str, requests.Session]
) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "echo"
    send(case, live)


@SCHEMA.include(path=list(REQUESTS)).parametrize()
@FUZZING
def test_whatever_stands_beside_a_sound_question_the_endpoint_does_not_fail(
    case: schemathesis.Case[Any], live: tuple[str, requests.Session]
) -> None:
    if isinstance(case.body, dict):
        case.body |= REQUESTS[case.path] | {"model": "echo"}
        case.body.pop("stop", None)  # hardly any list of generated texts is short enough
    send(case, live)
