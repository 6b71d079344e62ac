"""Other engines from the owner's side: the configuration file, --serve NAME=URL, and doctor's look at them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ryvion_node.cli.doctor.engines import examine_engines
from ryvion_node.cli.doctor.finding import Finding
from ryvion_node.config import ConfigInvalid, NodeConfig, load_config
from ryvion_node.engine.remote.spec import RemoteSpec
from ryvion_node.executor.hardware import remote_hardware
from ryvion_node.library.remotes import RemoteNotUsable, remote_specs
from tests.node.cli.test_cli_up import load

FULL = """
[node]
jurisdiction = "DE"
[executor]
enabled = true
[[executor.remote_models]]
name = "llama-70b"
url = "http://127.0.0.1:8000/v1"
served_as = "meta/Llama-70B"
key_file = "engine.key"
flavour = "vllm"
context_tokens = 32768
slots = 256
quantisation = "FP8"
digest = "DIGEST"
features = ["tools", "json_schema"]
hardware = "8 x H100"
""".replace("DIGEST", "ab" * 32)


def configured(folder: Path, text: str) -> NodeConfig:
    path = folder / "node.toml"
    path.write_text(text)
    return load_config(path)


def test_table_becomes_a_spec_with_paths_beside_the_file(tmp_path: Path) -> None:
    tokenizer = tmp_path / "vocabulary.gguf"
    tokenizer.touch()
    config = configured(tmp_path, FULL)
    wanted = RemoteSpec(
        name="llama-70b",
        url="http://127.0.0.1:8000/v1",
        served_as="meta/Llama-70B",
        key_file=tmp_path / "engine.key",
        flavour="vllm",
        context_tokens=32768,
        slots=256,
        quantisation="FP8",
        digest=b"\xab" * 32,
        features=("json_schema", "tools"),
    )
    assert remote_specs(config, {}) == (wanted,)
    # Who states a digest is counted as buyers who know it count.
    assert remote_specs(config, {b"\xab" * 32: tokenizer}) == (replace(wanted, tokenizer=tokenizer),)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('url = "127.0.0.1:8000"', "url"),
        ('url = "http://me:secret@host"', "url"),
        ('key_env = "A"\nkey_file = "b"', "not both"),
        ("slots = 0", "slots"),
        ('flavour = "gpt"', "flavour"),
        ('pth = "x"', "pth"),
    ],
)
def test_table_that_is_wrong_is_told_without_its_secrets(tmp_path: Path, line: str, problem: str) -> None:
    text = '[[executor.remote_models]]\nname = "m"\n' + ("" if "url" in line else 'url = "http://h"\n') + line
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        configured(tmp_path, text)
    assert "secret" not in str(caught.value)


def test_names_are_unique_across_engines(tmp_path: Path) -> None:
    text = '[[executor.models]]\nname = "m"\n[[executor.remote_models]]\nname = "m"\nurl = "http://h"\n'
    with pytest.raises(ConfigInvalid, match="m is there twice"):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('features = ["telepathy"]', "telepathy"),
        ('features = ["regex"]\nflavour = "ollama"', "regex"),
        ('tokenizer = "none.gguf"', "no tokenizer"),
        ('url = "http://host:99999"', "Port out of range"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, line: str, problem: str) -> None:
    text = '[[executor.remote_models]]\nname = "m"\n' + ("" if "url" in line else 'url = "http://h"\n') + line
    with pytest.raises(RemoteNotUsable, match=problem):
        remote_specs(configured(tmp_path, text), {})


def test_serving_a_url_sells_from_another_engine(home: Path) -> None:
    config = load(home, "big=http://127.0.0.1:8000", "ryvion-tiny", jurisdiction="DE", threads=2)
    assert [(model.name, model.url) for model in config.executor.remote_models] == [("big", "http://127.0.0.1:8000")]
    assert [(model.name, model.threads) for model in config.executor.models] == [("ryvion-tiny", 2)]
    assert load(home, "big=https://h/v1", jurisdiction="DE").executor.models == ()


def test_machine_of_another_engine_is_what_its_owner_states() -> None:
    assert remote_hardware(["", "8 x  H100"]).name == "8 x H100"
    assert (remote_hardware([]).name, remote_hardware([]).backend) == ("another engine", "remote")


class _Lister(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "served", "owned_by": "vllm"}]}).encode()
        allowed = self.headers["Authorization"] == "Bearer right"
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def lister() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Lister) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def looked_at(folder: Path, text: str) -> Finding:
    (finding,) = examine_engines(configured(folder, text))
    return finding


def test_doctor_looks_at_each_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = '[[executor.remote_models]]\nname = "m"\nurl = "URL"\nkey_env = "ENGINE_KEY"\n'
    monkeypatch.setenv("ENGINE_KEY", "right")
    with lister() as url:
        found = looked_at(tmp_path, table.replace("URL", url))
        assert (found.outcome, found.detail) == ("ok", f"m: {url} serves it as served")
        missing = looked_at(tmp_path, table.replace("URL", url) + 'served_as = "other"\n')
        assert missing.outcome == "fail" and "one of: served" in missing.detail
        monkeypatch.setenv("ENGINE_KEY", "wrong")
        refused = looked_at(tmp_path, table.replace("URL", url))
        assert refused.outcome == "fail" and "key" in refused.detail and "wrong" not in refused.detail
    away = looked_at(tmp_path, table.replace("URL", url))
    assert away.outcome == "warn" and "start the engine" in away.mend
    monkeypatch.delenv("ENGINE_KEY")
    assert "ENGINE_KEY" in looked_at(tmp_path, table.replace("URL", url)).detail
    assert list(examine_engines(NodeConfig())) == []
