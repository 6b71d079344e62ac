"""`offers` and `route`: what the running node says, as tables and as JSON; and every way it cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.node.cli.conftest import Run
from tests.node.cli.control_fake import TOKEN, serve_control

HARDWARE = {"name": "NVIDIA RTX 4090", "count": 1, "memory_bytes": 0, "backend": "cuda"}
OFFER: dict[str, Any] = {
    "node_key": "ab" * 32,
    "jurisdiction": "DE",
    "location": "Berlin",
    "hardware": HARDWARE,
    "models": [
        {
            "name": name,
            "price_in": 50_000,
            "price_out": 200_000,
            "slots_free": 3,
            "slots_total": 4,
            "millitokens_per_s": 81_500,
            "context_tokens": 512,
        }
        for name in ("ryvion-tiny", "[red]other")
    ],
}
CANDIDATE: dict[str, Any] = {
    "node_key": "ab" * 32,
    "jurisdiction": "DE",
    "location": "Berlin",
    "hardware": HARDWARE,
    "price_in": 50_000,
    "price_out": 200_000,
    "first_token_ms": 12,
    "expected_cost": 3,
    "score": 0.875,
    "outcome": "won",
    "reason": "cheapest",
}
LOSER = CANDIDATE | {
    "outcome": "not_asked",
    "first_token_ms": None,
    "expected_cost": None,
    "score": None,
    "reason": "only 3 are asked",
}
ROUTE: dict[str, Any] = {
    "model": "ryvion-tiny",
    "jurisdictions": ["DE"],
    "sort": "price",
    "candidates": [CANDIDATE, LOSER],
    "winner": "ab" * 32,
    "explanation": "1 of 2 bid.",
    "decided_ms": 7,
}


def test_offers_as_a_table(run: Run, home: Path) -> None:
    with serve_control(home, {"/api/v1/offers": (200, {"offers": [OFFER]})}) as control:
        shown = run("offers")
    assert shown.exit_code == 0
    for text in ("ryvion-tiny", "[red]other", "DE Berlin", "NVIDIA RTX 4090", "0.05/M", "0.2/M", "82/s", "3/4", "512"):
        assert text in shown.stdout
    assert [(asked.method, asked.token) for asked in control.asked] == [("GET", f"Bearer {TOKEN}")]


def test_offers_of_one_model_as_json(run: Run, home: Path) -> None:
    with serve_control(home, {"/api/v1/offers": (200, {"offers": [OFFER]})}):
        shown = run("offers", "--json", "--model", "ryvion-tiny")
    (offer,) = json.loads(shown.stdout)["offers"]
    assert [model["name"] for model in offer["models"]] == ["ryvion-tiny"]


def test_no_offers_is_no_result_and_a_hint(run: Run, home: Path) -> None:
    with serve_control(home, {"/api/v1/offers": (200, {"offers": []})}):
        shown = run("offers")
    assert (shown.stdout, shown.exit_code) == ("", 0)
    assert "No offers" in shown.stderr


def test_route_explains(run: Run, home: Path) -> None:
    with serve_control(home, {"/api/v1/route": (200, ROUTE)}) as control:
        shown = run("route", "ryvion-tiny", "--jurisdiction", "de", "--max-price", "0.001")
        run("route", "ryvion-tiny", "--sort", "price", "--deny", "cd" * 32, "--feature", "tools", "--feature", "top_k")
        run("route", "ryvion-tiny")
    assert shown.exit_code == 0
    for text in ("decided by price", "won", "cheapest", "12 ms", "0.000003", "0.88", "not asked", "only 3 are asked"):
        assert text in shown.stdout
    assert [asked.body for asked in control.asked] == [
        {"model": "ryvion-tiny", "jurisdiction": "de", "ryvion": {"max_price": 1000}},
        {"model": "ryvion-tiny", "ryvion": {"sort": "price", "deny": ["cd" * 32]}, "features": ["tools", "top_k"]},
        {"model": "ryvion-tiny", "ryvion": {}},
    ]


def test_route_without_a_winner_exits_1(run: Run, home: Path) -> None:
    with serve_control(home, {"/api/v1/route": (200, ROUTE | {"winner": None, "candidates": []})}):
        assert run("route", "ryvion-tiny").exit_code == 1
        assert json.loads(run("route", "ryvion-tiny", "--json").stdout)["winner"] is None


def test_route_refuses_a_price_that_is_none(run: Run) -> None:
    refused = run("route", "ryvion-tiny", "--max-price", "0.0000001")
    assert refused.exit_code == 2
    assert "6 decimals" in refused.stderr


def test_the_nodes_own_error_is_shown(run: Run, home: Path) -> None:
    error = {"error": {"message": "Mars is no jurisdiction.", "type": "x", "param": None, "code": "invalid_value"}}
    with serve_control(home, {"/api/v1/route": (400, error)}):
        refused = run("route", "ryvion-tiny", "--jurisdiction", "Mars")
    assert str(refused.error) == "Mars is no jurisdiction."


def test_no_node_is_said_with_the_mend(run: Run) -> None:
    refused = run("offers")
    assert refused.exit_code == 69
    assert "ryvion-node up --proxy" in str(refused.error)


def test_a_node_that_is_gone_is_said(run: Run, home: Path) -> None:
    with serve_control(home, {}):
        pass
    assert "does not answer" in str(run("offers").error)


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"offers'])
def test_an_answer_that_is_no_json_is_said(run: Run, home: Path, answer: bytes) -> None:
    with serve_control(home, {"/api/v1/offers": (200, answer)}):
        assert "does not answer" in str(run("offers").error)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"url": 1, "token": "x"}', "\udcff"])
def test_a_broken_control_file_is_said(run: Run, home: Path, content: str) -> None:
    home.mkdir(mode=0o700)
    control_file = home / "control.json"
    control_file.touch(mode=0o600)
    control_file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "Restart the node" in str(run("offers").error)


def test_a_control_file_that_others_may_read_is_refused(run: Run, home: Path) -> None:
    with serve_control(home, {}):
        (home / "control.json").chmod(0o644)
        assert run("offers").exit_code == 77
