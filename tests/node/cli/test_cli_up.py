"""`up`: flags and file become one configuration; the ready line tells programs and people where the node is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ryvion_node.cli.up import load_node_config, ready_line
from ryvion_node.config import ConfigInvalid, NodeConfig
from ryvion_node.paths import resolve_paths

NO_FLAGS: dict[str, object] = {
    "network": None,
    "jurisdiction": None,
    "location": None,
    "listen": (),
    "bootstrap": (),
    "proxy": None,
    "proxy_port": None,
    "price_in": None,
    "price_out": None,
    "log_level": None,
    "threads": None,
    "engine": None,
}


def load(home: Path, *serve: str, file: Path | None = None, **flags: object) -> NodeConfig:
    return load_node_config(file, resolve_paths(home), serve, NO_FLAGS | flags)


def test_without_file_and_flags_the_defaults_hold(home: Path) -> None:
    assert load(home) == NodeConfig()


def test_flags_go_over_the_file_of_the_home(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text(
        '[node]\njurisdiction = "DE"\nlocation = "Berlin"\n[proxy]\nenabled = true\nport = 1234\n'
    )
    config = load(home, jurisdiction="CA", proxy=False)
    assert (config.node.jurisdiction, config.node.location) == ("CA", "Berlin")
    assert (config.proxy.enabled, config.proxy.port) == (False, 1234)


def test_a_named_file_goes_before_the_one_of_the_home(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("this is not TOML")
    other = tmp_path / "other.toml"
    other.write_text("[proxy]\nport = 99\n")
    assert load(home, file=other).proxy.port == 99


def test_serving_makes_an_executor(home: Path) -> None:
    config = load(home, "ryvion-tiny", jurisdiction="de", price_in="0.05", price_out="0.2")
    assert config.executor.enabled
    assert [(model.name, model.path) for model in config.executor.models] == [("ryvion-tiny", None)]
    assert (config.executor.price_in, config.executor.price_out, config.node.jurisdiction) == (50_000, 200_000, "DE")


@pytest.mark.parametrize(("text", "name"), [("mine=model.gguf", "mine"), ("sub/other.gguf", "other")])
def test_a_file_is_served_under_its_name(home: Path, text: str, name: str) -> None:
    (model,) = load(home, text, jurisdiction="DE").executor.models
    assert (model.name, model.bundled) == (name, None)
    assert model.path is not None and model.path.is_absolute()


def test_threads_hold_for_every_served_model(home: Path) -> None:
    models = load(home, "ryvion-tiny", "tinyllama", jurisdiction="DE", threads=3).executor.models
    assert [model.threads for model in models] == [3, 3]


def test_selling_without_a_place_is_refused_with_the_mend(home: Path) -> None:
    with pytest.raises(ConfigInvalid, match="--jurisdiction"):
        load(home, "ryvion-tiny")


def test_the_ready_line_is_for_programs_and_for_people() -> None:
    from ryvion_node.daemon import NodeReady
    from ryvion_protocol.schema import NodeKey

    ready = NodeReady(
        peer_id="12D3KooWpeer",
        node_key=NodeKey(bytes(32)),
        listening=("/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWpeer",),
        endpoint="http://127.0.0.1:7986/v1",
        control="http://127.0.0.1:7986",
        serving=("ryvion-tiny",),
    )
    said = json.loads(ready_line(ready, as_json=True))
    assert said["event"] == "ready"
    assert (said["node_key"], said["endpoint"]) == ("00" * 32, "http://127.0.0.1:7986/v1")
    line = ready_line(ready, as_json=False)
    assert "\n" not in line
    assert all(part in line for part in ("12D3KooWpeer", "http://127.0.0.1:7986/v1", "ryvion-tiny"))
    assert "not serving" not in line
    part = replace(ready, not_serving=("damaged",))
    assert json.loads(ready_line(part, as_json=True))["not_serving"] == ["damaged"]
    assert "not serving damaged (see the log" in ready_line(part, as_json=False)
