"""A server behind the node: its slots and pace are kept, its key stays secret, and its models are offered while it has them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import TINY, collect, failure, text_of
from scripted_server import DONE, Body, Play, ScriptedServer, chunk, plausible, refused, reply, said, serving, usage
from test_remote_answers import GO, QUICK, remote, sglang

from ryvion_node.engine.fleet import Fleet
from ryvion_node.engine.interface import (
    Ended,
    EngineError,
    OutputFormat,
    Piece,
    PromptRead,
    ScoringRequest,
    Tool,
    ToolUse,
    Turn,
)
from ryvion_node.engine.remote.engine import RemoteEngine
from ryvion_node.engine.remote.key import KeyMissing, load_key
from ryvion_node.engine.remote.spec import RemoteSpec, parse_url
from ryvion_node.paths import TooOpen


async def until_models(engine: RemoteEngine | Fleet, count: int) -> None:
    with trio.fail_after(20):
        while len(engine.models()) != count:
            await engine.changed(engine.revision)


async def test_no_more_jobs_upstream_than_slots() -> None:
    server = sglang(said(*["x"] * 50))
    async with serving(server), remote(server, slots=2) as engine, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(collect, engine, GO)
    assert server.most_open == 2
    assert len(server.jobs()) == 6


async def test_leaving_a_job_closes_its_request() -> None:
    server = sglang(Play([chunk({"content": "Hi"}), "stall"]))
    async with serving(server), remote(server) as engine:
        with trio.fail_after(5):
            async with engine.generate(GO) as events:
                assert isinstance(await anext(events), PromptRead)
                assert await anext(events) == Piece("Hi")
            await server.idle()
        assert engine.status()[0].running == 0


async def test_cancelled_job_closes_its_request() -> None:
    server = sglang(Play(["stall"]))
    async with serving(server), remote(server) as engine:
        with trio.move_on_after(0.1):
            await collect(engine, GO)
        with trio.fail_after(5):
            await server.idle()


async def test_slow_reader_holds_the_server_back() -> None:
    pieces = [chunk({"content": "x" * 20_000})] * 1000
    server = sglang(Play([*pieces, chunk(finish="stop"), usage(7, 5), DONE]))
    server.models = ({"id": "m", "owned_by": "sglang"},)
    async with serving(server), remote(server, context_tokens=2**20) as engine:
        async with engine.generate(replace(GO, max_tokens=200_000)) as events:
            await anext(events)
            await anext(events)
            seen = -1
            while seen != server.sent_bytes:
                seen = server.sent_bytes
                await trio.sleep(0.2)
            assert seen < 15_000_000
            rest = [event async for event in events]
        assert sum(len(piece.text) for piece in rest if isinstance(piece, Piece)) == 999 * 20_000


async def test_model_goes_and_comes_with_its_server() -> None:
    server = sglang(said("fine"))
    async with serving(server):
        port = server.port
        spec = RemoteSpec("m", server.url)
    engine = RemoteEngine([spec], timing=QUICK)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        assert engine.status()[0].state == "restarting"
        assert "refused" in engine.status()[0].reason
        assert (await failure(engine, GO)).code == "worker_crashed"
        for _ in range(2):
            server.port = port
            async with serving(server):
                await until_models(engine, 1)
                assert text_of(await collect(engine, GO)) == "fine"
            await until_models(engine, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[2J", "", 7, None, ["m"]])
async def test_a_model_without_a_usable_id_is_none(name: object) -> None:
    server = sglang(said("fine"))
    server.models = ({"id": name, "owned_by": "sglang", "max_model_len": 512},)
    async with serving(server), remote(server) as engine:
        assert engine.status()[0].state == "broken"
        assert "no model 'm'" in engine.status()[0].reason


async def test_half_a_character_of_a_rendered_prompt_counts_as_one() -> None:
    server = ScriptedServer(lambda _: said("fine"))
    server.models = ({"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 512}},)
    server.routes["/props"] = lambda _: reply({})
    server.routes["/apply-template"] = lambda _: reply({"prompt": "a\ud800"})
    server.routes["/tokenize"] = lambda body: reply({"tokens": list(body["content"].encode())})
    async with serving(server), remote(server) as engine:
        assert await engine.count_prompt("m", GO.turns) == 2


async def test_job_that_fails_has_its_server_looked_at_without_delay() -> None:
    server = sglang(refused(404, "unloaded"))
    async with serving(server):
        engine = RemoteEngine([RemoteSpec("m", server.url)], timing=replace(QUICK, check_every_s=3600))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await engine.settled()
            server.models = ()
            assert (await failure(engine, GO)).code == "model_broken"
            await until_models(engine, 0)
            assert "no model 'm'" in engine.status()[0].reason
            nursery.cancel_scope.cancel()


async def test_model_that_is_missing_is_named_with_those_that_are_there() -> None:
    server = ScriptedServer(models=({"id": "a", "owned_by": "sglang"}, {"id": "b", "owned_by": "sglang"}))
    async with serving(server), remote(server) as engine:
        assert engine.models() == ()
        assert "set served_as to one of: a, b" in engine.status()[0].reason
        server.models = ({"id": "m", "owned_by": "sglang"},)
        await until_models(engine, 1)


async def test_silent_server_is_not_offered() -> None:
    server = ScriptedServer()
    server.routes["/v1/models"] = lambda _: Play(["stall"], media_type="application/json")
    async with serving(server):
        engine = RemoteEngine([RemoteSpec("m", server.url)], timing=replace(QUICK, connect_s=0.1, answer_s=0.1))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            with trio.fail_after(5):
                await engine.settled()
            assert engine.status()[0].state == "restarting"
            nursery.cancel_scope.cancel()


async def test_what_the_server_refuses_or_ignores_is_not_offered() -> None:
    def trial(body: Body) -> Play:
        if body.get("tools") and body["tool_choice"] == "auto":
            return refused(400, "tool choice requires --enable-auto-tool-choice")
        if body.get("response_format"):
            return refused(500, "no grammar backend")
        return plausible({**body, "logprobs": False})

    server = sglang(said("x"), trial=trial)
    async with serving(server), remote(server) as engine:
        (model,) = engine.models()
        error = await failure(engine, replace(GO, tools=ToolUse((Tool("look", "", ""),))))
    assert set(model.features) == {
        "top_k",
        "min_p",
        "penalties",
        "repetition_penalty",
        "logit_bias",
        "regex",
        "prefix",
    }
    assert error.code == "unsupported" and "tools" in str(error)


async def test_tools_are_offered_where_the_template_knows_them_and_a_long_thought_is_no_refusal() -> None:
    def thinks(body: Body) -> Play:
        if body.get("tool_choice") == "required":
            return Play([chunk({"reasoning_content": "Hm"}), chunk(finish="length"), usage(5, 1), DONE])
        return plausible(body)

    async with serving(sglang(said("x"), trial=thinks)) as server, remote(server) as engine:
        assert "tools" in engine.models()[0].features
    for able in (True, False):
        server = ScriptedServer(models=({"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 512}},))
        server.routes["/tokenize"] = lambda _: reply({"tokens": [1, 2]})
        server.routes["/apply-template"] = lambda _: reply({"prompt": "x"})
        server.routes["/props"] = lambda _, able=able: reply({"chat_template_caps": {"supports_tools": able}})
        async with serving(server), remote(server) as engine:
            assert ("tools" in engine.models()[0].features) is able


async def test_old_vllm_has_no_regex_and_an_unknown_server_only_what_its_owner_states() -> None:
    old = ScriptedServer(models=({"id": "m", "owned_by": "vllm", "max_model_len": 512},))
    old.routes["/version"] = lambda _: reply({"version": "0.10.2"})
    async with serving(old), remote(old) as engine:
        assert "regex" not in engine.models()[0].features
        assert "json_schema" in engine.models()[0].features
    unknown = ScriptedServer(models=({"id": "m", "owned_by": "someone"},))
    async with serving(unknown), remote(unknown) as engine:
        assert engine.models()[0].features == ()
    async with serving(unknown), remote(unknown, features=("tools", "top_k")) as engine:
        assert engine.models()[0].features == ("tools", "top_k")
        assert engine.models()[0].digest == bytes(32)


async def test_prefix_that_a_server_repeats_is_taken_off() -> None:
    def echo(body: Body) -> Play:
        last = body["messages"][-1]
        said_before = last["content"] if last["role"] == "assistant" else ""
        return Play(
            [chunk({"content": said_before}), chunk({"content": " Paris"}), chunk(finish="stop"), usage(7, 1), DONE]
        )

    server = sglang(said("x"), trial=lambda body: plausible(body) if "logprobs" in body else echo(body))
    server.job = echo
    turns = (Turn("user", "go"), Turn("assistant", "It is"))
    async with serving(server), remote(server) as engine:
        assert text_of(await collect(engine, replace(GO, turns=turns))) == " Paris"


async def test_context_of_the_server_is_kept() -> None:
    server = ScriptedServer(job=lambda _: said("x"))
    server.routes["/version"] = lambda _: reply({"version": "0.12.0"})
    server.routes["/tokenize"] = lambda _: reply({"count": 500})
    async with serving(server), remote(server, context_tokens=4096) as engine:
        assert engine.models()[0].context_tokens == 512
        await collect(engine, GO)
        assert server.jobs()[0]["max_tokens"] == 12
        server.routes["/tokenize"] = lambda _: reply({"count": 512})
        assert (await failure(engine, GO)).code == "context_overflow"
    assert len(server.jobs()) == 1


async def test_answer_that_does_not_fit_behind_an_uncounted_prompt_is_asked_for_shorter() -> None:
    def strict(body: Body) -> Play:
        return said("x") if body["max_tokens"] <= 400 else refused(400, "maximum context length is 512 tokens")

    server = sglang(said("x"))
    server.job = strict
    async with serving(server), remote(server) as engine:
        assert text_of(await collect(engine, replace(GO, max_tokens=500))) == "x"
        first, second = server.jobs()
        assert (first["max_tokens"], 300 < second["max_tokens"] < 400) == (500, True)
        server.job = lambda _: refused(400, "maximum context length is 512 tokens")
        assert (await failure(engine, GO)).code == "context_overflow"
    assert len(server.jobs()) == 3


async def test_own_tokenizer_counts_prompt_and_answer() -> None:
    server = sglang(said("The capital of", " France", finish="length"))
    async with serving(server), remote(server, tokenizer=TINY, digest=b"d" * 32) as engine:
        assert "counted" in engine.models()[0].features
        assert engine.models()[0].digest == b"d" * 32
        events = await collect(engine, GO)
        assert events[0] == PromptRead(await engine.count_prompt("m", GO.turns))
        assert events[-1] == Ended("length", await engine.count_texts("m", ["The capital of France"]))


async def test_nobody_counts_scores_or_embeds_where_nobody_can() -> None:
    server = sglang(said("x"))
    async with serving(server), remote(server) as engine:
        for ask in (
            engine.count_prompt("m", GO.turns),
            engine.count_texts("m", ["x"]),
            engine.score(ScoringRequest("m", GO.turns, (1,), GO.sampling)),
            engine.embed("m", ["x"]),
        ):
            with pytest.raises(EngineError) as caught:
                await ask
            assert caught.value.code == "unsupported"
        with pytest.raises(EngineError) as caught:
            await engine.count_texts("other", ["x"])
        assert caught.value.code == "model_unknown"


async def test_key_goes_to_its_server_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server = sglang(said("x"))
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_text("sk-very-secret\n")
    async with serving(server), remote(server, key_file=key_file) as engine:
        await collect(engine, GO)
        server.routes["/v1/models"] = lambda _: refused(401, "bad key sk-very-secret")
        server.job = lambda _: refused(401, "bad key sk-very-secret")
        error = await failure(engine, GO)
        await until_models(engine, 0)
        told = json.dumps([str(error), engine.status()[0].reason, repr(engine.__dict__)], default=repr)
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-very-secret"}
    assert "secret" not in told
    assert "secret" not in caplog.text
    assert "check key_file" in engine.status()[0].reason


async def test_key_that_a_server_repeats_when_a_job_is_tried_stays_out_of_the_reason(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_text("sk-very-secret")
    for status, state in ((401, "broken"), (400, "restarting")):
        server = sglang(said("x"), trial=lambda _, status=status: refused(status, "no: sk-very-secret is bad"))
        async with serving(server), remote(server, key_file=key_file) as engine:
            (told,) = engine.status()
        assert (told.state, "is bad" in told.reason, "secret" in told.reason) == (state, True, False)


async def test_long_prompt_may_take_its_time_before_the_first_piece() -> None:
    first = chunk({"role": "assistant", "content": ""})
    server = sglang(Play([first, "wait", chunk({"content": "Hi"}), chunk(finish="stop"), usage(7, 1), DONE]))
    async with serving(server), remote(server) as engine:
        assert text_of(await collect(engine, GO)) == "Hi"


def test_key_must_be_there_private_and_one_line(tmp_path: Path) -> None:
    spec = RemoteSpec("m", "http://127.0.0.1:1", key_env="SOME_KEY")
    assert load_key(spec, {"SOME_KEY": " abc \nrest"}) == "abc"
    for value in ("", "  ", "two words", "caf\u00e9"):
        with pytest.raises(KeyMissing, match="SOME_KEY"):
            load_key(spec, {"SOME_KEY": value})
    path = tmp_path / "key"
    with pytest.raises(KeyMissing, match="no file"):
        load_key(replace(spec, key_file=path))
    path.write_text("abc")
    path.chmod(0o644)
    with pytest.raises(TooOpen):
        load_key(replace(spec, key_file=path))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "http://",
        "host:80",
        "http://u:p@host",
        "http://host/?q=1",
        "http://host/#x",
        "http://host:99999",
        "http://h h",
        "http://gpu..lan",
        "https://.lan",
        f"http://{'a' * 64}.lan",
    ],
)
def test_url_of_a_server_is_strict_and_its_refusal_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Port") as caught:
        parse_url(url)
    assert "u:p" not in str(caught.value)


def test_v1_at_the_end_of_a_url_makes_no_difference() -> None:
    assert parse_url("http://host:8000/v1/") == parse_url("http://host:8000")
    assert str(parse_url("https://[::1]/gate/v1")) == "https://[::1]/gate"


async def test_fleet_finds_the_engine_of_each_model() -> None:
    first, second = sglang(said("one")), sglang(said("two"))
    async with serving(first), serving(second), trio.open_nursery() as nursery:
        engines = [
            RemoteEngine([RemoteSpec(name, server.url)], timing=QUICK) for name, server in (("a", first), ("b", second))
        ]
        with pytest.raises(ValueError, match="two engines"):
            Fleet([engines[0], RemoteEngine([RemoteSpec("a", second.url)])])
        fleet = Fleet(engines)
        await nursery.start(fleet.run)
        await fleet.settled()
        assert [model.name for model in fleet.models()] == ["a", "b"]
        assert text_of(await collect(fleet, replace(GO, model="b"))) == "two"
        assert (await failure(fleet, replace(GO, model="c"))).code == "model_unknown"
        second.models = ()
        await until_models(fleet, 1)
        assert [status.state for status in fleet.status()] == ["ready", "broken"]
        nursery.cancel_scope.cancel()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    server = sglang(said("fine"))
    async with serving(server), remote(server) as engine:
        assert text_of(await collect(engine, replace(GO, output=OutputFormat("json_object")))) == "fine"
