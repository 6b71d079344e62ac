"""`keys`, `locate` and `doctor`: the node's own things."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from ryvion_node.cli.doctor import machine
from ryvion_node.identity import load_or_create_identity
from ryvion_node.keys import KeyLimits, KeyStore
from ryvion_node.ledger.database import prepare_database
from ryvion_node.ledger.transactions import begin, settle_bought
from ryvion_node.models.catalogue import catalogue
from tests.node.cli.conftest import Run
from tests.node.ledger.ledger_samples import begun, settlement

# --- keys ---


def test_a_key_is_made_listed_and_revoked(run: Run, home: Path) -> None:
    made = run("keys", "create", "laptop", "--scope", "read-only", "--jurisdiction", "eu")
    token = made.stdout.strip()
    assert token.startswith("ryv_") and token not in made.stderr
    key = KeyStore(home / "keys.json").authenticate(token)
    assert key is not None and "DE" in key.jurisdictions
    assert token not in run("keys", "list").stdout
    (listed,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert (listed["name"], listed["scope"]) == ("laptop", "read-only")
    assert run("keys", "revoke", listed["id"]).exit_code == 0
    assert KeyStore(home / "keys.json").authenticate(token) is None


def test_a_new_key_has_limits_that_can_be_changed(run: Run, home: Path) -> None:
    run("keys", "create", "agent", "--budget-day", "2", "--budget-total", "50.000001")
    (listed,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert listed["limits"] == {
        "budget_day_microcredits": 2_000_000,
        "budget_total_microcredits": 50_000_001,
        "velocity_microcredits": 5_000_000,
        "requests_per_minute": 3000,
        "jobs_at_once": 64,
    }
    assert listed["left_microcredits"] == 2_000_000
    changed = run("keys", "set", listed["id"], "--velocity", "unlimited", "--budget-day", "0.5", "--jobs-at-once", "3")
    assert "0 of 0.5" in changed.stdout
    (key,) = KeyStore(home / "keys.json").list_keys()
    assert key.limits == KeyLimits(budget_day=500_000, budget_total=50_000_001, jobs_at_once=3)


def test_what_a_key_has_spent_and_has_left_is_listed(run: Run, home: Path) -> None:
    run("keys", "create", "agent", "--budget-total", "1")
    (key,) = KeyStore(home / "keys.json").list_keys()
    prepare_database(home / "ledger.sqlite3")
    now_ms = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite3")) as db, db:
        begin(begun(1, key_id=key.id), now_ms)(db)
        settle_bought(settlement(1, cost=250_000), now_ms)(db)
        begin(begun(2, key_id=key.id, max_price=50_000), now_ms)(db)
    (listed,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert listed["spent_microcredits"] == {"hour": 250_000, "day": 250_000, "total": 250_000, "running": 50_000}
    assert listed["left_microcredits"] == 700_000
    table = run("keys", "list").stdout
    assert "0.25 of 5" in table and "0.25 of 1" in table


def test_no_keys_is_a_hint(run: Run) -> None:
    shown = run("keys", "list")
    assert (shown.stdout, shown.exit_code) == ("", 0)
    assert "keys create" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("keys", "create", "x", "--jurisdiction", "Mars"), 2, "Mars"),
        (("keys", "create", "x", "--scope", "king"), 2, "king"),
        (("keys", "create", ""), 64, "printable"),
        (("keys", "revoke", "key-none"), 66, "keys list"),
        (("keys", "set", "key-none", "--velocity", "1"), 66, "keys list"),
        (("keys", "set", "key-none"), 2, "at least one"),
        (("keys", "create", "x", "--budget-day", "much"), 2, "unlimited"),
        (("keys", "create", "x", "--budget-day", "-1"), 2, "unlimited"),
        (("keys", "create", "x", "--budget-day", "0.0000001"), 2, "6 decimals"),
        (("keys", "create", "x", "--budget-day", "nan"), 2, "no number"),
        (("keys", "create", "x", "--budget-total", "1e30"), 2, "no number"),
        (("keys", "create", "x", "--jobs-at-once", "1.5"), 2, "no number"),
    ],
)
def test_a_wrong_key_command_is_told(run: Run, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    refused = run(*arguments)
    assert refused.exit_code == exit_code
    assert message in (refused.stderr or str(refused.error))


# --- locate ---


def test_locate_creates_nothing(run: Run, home: Path) -> None:
    shown = run("locate")
    assert shown.exit_code == 0
    assert str(home) in shown.stdout and "not made yet" in shown.stdout
    assert not home.exists()


def test_locate_names_the_node(run: Run, home: Path) -> None:
    identity = load_or_create_identity(home / "identity.key")
    (home / "config.toml").write_text("[proxy]\nenabled = true\nport = 8123\n")
    places = json.loads(run("locate", "--json").stdout)
    assert places["peer_id"].startswith("12D3KooW")
    assert places["node_key"] == identity.public_key.hex()
    assert places["endpoint"] == "http://127.0.0.1:8123/v1"
    assert places["control"] is None


# --- doctor ---

SELLING = '[node]\njurisdiction = "DE"\n[executor]\nenabled = true\n'


@pytest.fixture
def examine(run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Doctor's findings by subject, and its exit code; llama.cpp is not loaded."""
    cpu = {"backend": "CPU", "name": "CPU", "kind": "cpu", "memory_bytes": 0, "free_bytes": 0}
    monkeypatch.setattr(machine, "probe_devices", lambda: [cpu])

    def examine() -> tuple[dict[str, dict[str, str]], int]:
        ran = run("doctor", "--json")
        return {finding["subject"]: finding for finding in json.loads(ran.stdout)["findings"]}, ran.exit_code

    return examine


def configure(home: Path, text: str) -> None:
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(text)


def test_a_fresh_machine_has_nothing_that_fails(examine: Any, home: Path) -> None:
    findings, exit_code = examine()
    assert exit_code == 0
    wanted = {
        "python",
        "compiler",
        "engine",
        "gpu",
        "clock",
        "config",
        "home",
        "identity",
        "api keys",
        "ledger",
        "knowledge bases",
        "node",
    }
    assert wanted <= findings.keys()
    assert not home.exists()


def test_models_that_cannot_be_sold_fail_with_the_mend(examine: Any, home: Path) -> None:
    bundled = catalogue().bundled()[0].path
    assert bundled is not None
    configure(home, SELLING + f'[[executor.models]]\nname = "mine"\npath = "{bundled}"\n')
    findings, exit_code = examine()
    assert (findings["model"]["outcome"], findings["price"]["outcome"], exit_code) == ("ok", "warn", 0)
    assert "slots of 1024 tokens" in findings["model"]["detail"]
    (home / "half.gguf").write_bytes(bundled.read_bytes()[:1_000_000])
    for wrong, said in [
        ('[[executor.models]]\nname = "mine"\npath = "half.gguf"', "truncated"),
        ('[[executor.models]]\nname = "mine"\npath = "none.gguf"', "no such file"),
        ('[[executor.models]]\nname = "nobody"', "no file of the model nobody"),
        ('[[executor.models]]\nname = "ryvion-tiny"\ncontext_tokens = 2000', "2000 tokens"),
        ('memory_budget = "5 MiB"\n[[executor.models]]\nname = "ryvion-tiny"', "memory_budget is 5.0 MiB"),
    ]:
        (home / "config.toml").write_text(SELLING + wrong)
        findings, exit_code = examine()
        assert (findings["model"]["outcome"], exit_code) == ("fail", 1)
        assert said in findings["model"]["detail"]
        assert findings["model"]["mend"]


def test_a_key_that_others_may_read_fails_with_the_mend(examine: Any, home: Path) -> None:
    load_or_create_identity(home / "identity.key")
    (home / "identity.key").chmod(0o644)
    findings, exit_code = examine()
    assert exit_code == 1
    assert findings["identity"]["outcome"] == "fail"
    assert "chmod 600" in findings["identity"]["mend"]


def test_a_home_that_others_may_enter_fails(examine: Any, home: Path) -> None:
    home.mkdir(mode=0o755)
    findings, exit_code = examine()
    assert (findings["home"]["outcome"], exit_code) == ("fail", 1)


def test_a_taken_port_fails(examine: Any, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        configure(home, f'[node]\nlisten = ["/ip4/127.0.0.1/tcp/{port}"]\n')
        findings, exit_code = examine()
    assert (findings["peer port"]["outcome"], exit_code) == ("fail", 1)
    assert "--listen" in findings["peer port"]["mend"]


def test_a_broken_configuration_fails_and_the_machine_is_still_examined(examine: Any, home: Path) -> None:
    configure(home, "[node]\njurisdicton = 'DE'\n")
    findings, exit_code = examine()
    assert (findings["config"]["outcome"], exit_code) == ("fail", 1)
    assert "jurisdiction" in findings["config"]["detail"]
    assert "python" in findings


def test_a_damaged_ledger_fails(examine: Any, home: Path) -> None:
    home.mkdir(mode=0o700)
    ledger = home / "ledger.sqlite3"
    ledger.touch(mode=0o600)
    ledger.write_bytes(b"not a database at all" * 100)
    findings, exit_code = examine()
    assert (findings["ledger"]["outcome"], exit_code) == ("fail", 1)


def test_damaged_knowledge_bases_fail(examine: Any, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "knowledge.db").touch(mode=0o600)
    (home / "knowledge.db").write_bytes(b"not a database at all" * 100)
    findings, exit_code = examine()
    assert (findings["knowledge bases"]["outcome"], exit_code) == ("fail", 1)
    assert "knowledge.db" in findings["knowledge bases"]["detail"]


def test_a_bootstrap_node_that_answers_and_one_that_does_not(examine: Any, home: Path) -> None:
    peer = "12D3KooWAbbcNa9CJxjGoUs9ZAzS5CNVpvKRTRzwaF1zN3jxWTwz"
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        configure(home, f'[node]\nbootstrap = ["/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"]\n')
        assert examine()[0]["bootstrap"]["outcome"] == "ok"
    assert examine()[0]["bootstrap"]["outcome"] == "warn"


def test_without_the_engine_a_buyer_is_warned_and_a_seller_fails(
    examine: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "probe_devices", lambda: "llama.cpp does not load (No module named 'llama_cpp')")
    assert examine()[0]["engine"]["outcome"] == "warn"
    configure(
        home,
        '[node]\njurisdiction = "DE"\n[executor]\nenabled = true\n[[executor.models]]\nname = "a"\nbundled = "a"\n',
    )
    findings, exit_code = examine()
    assert (findings["engine"]["outcome"], exit_code) == ("fail", 1)
    assert "pip install" in findings["engine"]["mend"]


@pytest.mark.slow
def test_the_engine_is_really_asked() -> None:
    devices = machine.probe_devices()
    assert isinstance(devices, list) and any(device["kind"] == "cpu" for device in devices)
