"""Whom to buy from, as options of `keys` and `route`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ryvion_node.keys import KeyLimits, KeyStore
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.preferences import ANY_OFFER, Preferences
from ryvion_protocol.schema import NodeKey
from tests.node.cli.conftest import Run

NODE, OTHER = NodeKey(b"\xab" * 32), NodeKey(b"\xcd" * 32)
FLAGS = (
    *("--sort", "price", "--max-price", "0.01", "--allow", NODE.hex(), "--allow", peer_id_of(OTHER)),
    *("--deny", OTHER.hex(), "--digest", f"sha256:{'12' * 32}", "--quantisation", "q8_0", "--quantisation", "F16"),
    *("--min-assurance", "count-checked"),
)
MEANT = Preferences(
    sort="price",
    max_price=10_000,
    allow=frozenset({NODE, OTHER}),
    deny=frozenset({OTHER}),
    digests=frozenset({b"\x12" * 32}),
    quantisations=frozenset({"Q8_0", "F16"}),
    min_assurance="count-checked",
)


def test_a_key_is_made_with_preferences_and_listed(run: Run, home: Path) -> None:
    made = run("keys", "create", "bulk", *FLAGS)
    key = KeyStore(home / "keys.json").authenticate(made.stdout.strip())
    assert key is not None and key.preferences == MEANT
    (listed,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert listed["preferences"] == {
        "sort": "price",
        "max_price": 10_000,
        "allow": [NODE.hex(), OTHER.hex()],
        "deny": [OTHER.hex()],
        "digest": ["12" * 32],
        "quantisation": ["F16", "Q8_0"],
        "min_assurance": "count-checked",
    }
    shown = run("keys", "list").stdout
    buys = next(line for line in shown.splitlines() if " buys: " in line)
    for text in (key.id, "by price", "at most 0.01 an answer", "deny cdcdcdcdcdcd…", "F16, Q8_0", "count-checked"):
        assert text in buys


def test_preferences_are_changed_one_by_one_and_unset(run: Run, home: Path) -> None:
    store = KeyStore(home / "keys.json")
    run("keys", "create", "bulk", *FLAGS)
    (made,) = store.list_keys()
    run(
        "keys",
        "set",
        made.id,
        "--sort",
        "latency",
        "--allow",
        "unset",
        "--deny",
        NODE.hex(),
        "--max-price",
        "unlimited",
    )
    (key,) = store.list_keys()
    assert (key.preferences.sort, key.preferences.max_price) == ("latency", None)
    assert (key.preferences.allow, key.preferences.deny) == (None, {NODE})
    assert (key.preferences.quantisations, key.limits) == (MEANT.quantisations, made.limits)
    for name in ("deny", "digest", "quantisation"):
        run("keys", "set", made.id, f"--{name}", "unset")
    run("keys", "set", made.id, "--sort", "balanced", "--min-assurance", "signed", "--velocity", "1")
    (key,) = store.list_keys()
    assert key.preferences.within(ANY_OFFER) == Preferences(sort="balanced")
    assert key.limits == KeyLimits(velocity=1_000_000)
    plain = run("keys", "create", "plain").stdout.strip()
    assert (found := store.authenticate(plain)) is not None and found.preferences == ANY_OFFER


@pytest.mark.parametrize("command", [("keys", "create", "x"), ("keys", "set", "key-none"), ("route", "ryvion-tiny")])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--allow", "somebody"), "--allow"),
        (("--deny", "AB" * 32), "--deny"),
        (("--digest", "Q8_0"), "64 lowercase hex digits"),
        (("--quantisation", "x" * 65), "--quantisation"),
        (("--allow", "unset", "--allow", NODE.hex()), "stands alone"),
        (("--sort", "cheap"), "latency"),
        (("--min-assurance", "sampled"), "count-checked"),
        (("--max-price", "0.0000001"), "6 decimals"),
    ],
)
def test_what_is_not_understood_is_said_with_the_option(
    run: Run, command: tuple[str, ...], flags: tuple[str, ...], said: str
) -> None:
    refused = run(*command, *flags)
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_a_key_says_which_nodes_get_passages(run: Run, home: Path) -> None:
    store = KeyStore(home / "keys.json")
    run("keys", "create", "careful", "--knowledge-assurance", "never")
    (made,) = store.list_keys()
    assert made.knowledge_assurance == "never"
    assert f"{made.id} sends passages of knowledge bases to nodes: never" in run("keys", "list").stdout
    run("keys", "set", made.id, "--knowledge-assurance", "signed")
    assert store.list_keys()[0].knowledge_assurance == "signed"
    assert "passages" not in run("keys", "list").stdout
    (listed,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert listed["knowledge_assurance"] == "signed"
