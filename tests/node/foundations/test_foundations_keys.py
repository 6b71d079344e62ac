"""API keys: shown once, kept as hashes, edited while the node runs, and nobody in when the file is not to be trusted."""

from __future__ import annotations

import fcntl
import json
import re
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node import keys as keys_module
from ryvion_node.jurisdictions import GROUPS, JurisdictionUnknown
from ryvion_node.keys import (
    MAX_LIMIT,
    NEW_KEY_LIMITS,
    NO_BUDGETS,
    OWNER,
    SCOPES,
    ApiKey,
    KeyLimits,
    KeyNameInvalid,
    KeyNotFound,
    KeysBusy,
    KeysCorrupt,
    KeyStore,
    TooManyKeys,
)
from ryvion_node.ledger.spending import Allowance
from ryvion_node.paths import TooOpen
from ryvion_node.preferences import ANY_OFFER, Preferences
from ryvion_node.preferences_object import MAX_ALTERNATIVES, MAX_NODES, MAX_QUANTISATION_BYTES
from ryvion_node.proxy.access import ALLOWED
from ryvion_protocol.schema import NodeKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


@pytest.fixture
def store(path: Path) -> KeyStore:
    return KeyStore(path, clock=lambda: 1234)


def test_a_new_key_opens_and_its_token_is_nowhere(store: KeyStore, path: Path) -> None:
    key, token = store.create("laptop", "buyer", "eu")
    assert re.fullmatch(r"ryv_[A-Za-z0-9_-]{32}", token)
    assert (key.name, key.scope, key.jurisdictions, key.created_ms) == ("laptop", "buyer", GROUPS["EU"], 1234)
    assert store.authenticate(token) == key
    assert store.list_keys() == (key,)
    assert token not in path.read_text()
    assert token[4:] not in repr(key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_other_token_opens(store: KeyStore) -> None:
    _, token = store.create("laptop", "buyer")
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "ryv_" + "A" * 32, "x" * 10_000, "\udc80", "é"):
        assert store.authenticate(wrong) is None


def test_without_a_file_nobody_opens(store: KeyStore, path: Path) -> None:
    assert store.authenticate("ryv_x") is None
    assert store.list_keys() == ()
    assert not path.exists()


def test_tokens_and_ids_never_repeat(store: KeyStore) -> None:
    made = [store.create(f"key {number}", "buyer") for number in range(20)]
    assert len({token for _, token in made}) == 20
    assert len({key.id for key, _ in made}) == 20


def test_another_process_may_create_and_revoke_while_we_run(store: KeyStore, path: Path) -> None:
    running = KeyStore(path, clock=lambda: 0)
    assert running.authenticate("ryv_none") is None
    key, token = store.create("cli", "operator")
    assert running.authenticate(token) == key
    other, other_token = store.create("cli 2", "read-only")
    assert running.authenticate(other_token) == other
    assert store.revoke(key.id) == key
    assert running.authenticate(token) is None
    assert running.list_keys() == (other,)
    path.unlink()
    assert running.authenticate(other_token) is None


def test_an_unchanged_file_is_not_read_again(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = store.create("laptop", "buyer")
    assert store.authenticate(token) is not None
    monkeypatch.setattr(keys_module, "read_private_file", None)
    assert store.authenticate(token) is not None


def test_an_unknown_id_is_named(store: KeyStore) -> None:
    with pytest.raises(KeyNotFound, match="key-00"):
        store.revoke("key-00")


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\x1b[2J"])
def test_an_unprintable_or_long_name_is_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(KeyNameInvalid):
        store.create(name, "buyer")


@pytest.mark.parametrize("place", ["UK", "", " "])
def test_an_unknown_jurisdiction_is_refused(store: KeyStore, path: Path, place: str) -> None:
    """An empty one too: `--jurisdiction "$PLACE"` must not make a key for everywhere."""
    with pytest.raises(JurisdictionUnknown):
        store.create("laptop", "buyer", place)
    assert not path.exists()


def test_there_is_a_limit(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "MAX_KEYS", 2)
    store.create("a", "buyer")
    store.create("b", "buyer")
    with pytest.raises(TooManyKeys, match="2 API keys"):
        store.create("c", "buyer")


def test_a_file_that_became_open_lets_nobody_in(store: KeyStore, path: Path) -> None:
    _, token = store.create("laptop", "buyer")
    assert store.authenticate(token) is not None
    path.chmod(0o644)
    for _ in range(2):
        with pytest.raises(TooOpen, match="chmod 600"):
            store.authenticate(token)
    path.chmod(0o600)
    assert store.authenticate(token) is not None


def test_a_second_editor_is_told_to_wait(store: KeyStore, path: Path) -> None:
    store.create("a", "buyer")
    with path.with_name("keys.json.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeysBusy):
            store.create("b", "buyer")
    store.create("b", "buyer")


LIMITS = asdict(NO_BUDGETS)
NODE, OTHER = NodeKey(b"\x01" * 32), NodeKey(b"\x02" * 32)
OLD_KEY = {
    "id": "key-1",
    "name": "n",
    "scope": "buyer",
    "jurisdictions": [],
    "created_ms": 1,
    "token_sha256": "ab" * 32,
}


def test_keys_of_the_first_version_are_read_without_budgets_and_kept_when_the_file_changes(
    store: KeyStore, path: Path
) -> None:
    store.create("laptop", "buyer")
    path.write_text(json.dumps({"version": 1, "keys": [OLD_KEY]}))
    (old,) = store.list_keys()
    assert (old.id, old.limits) == ("key-1", NO_BUDGETS)
    new, _ = store.create("new", "buyer")
    assert new.limits == NEW_KEY_LIMITS
    assert store.list_keys() == (old, new)
    assert json.loads(path.read_text())["version"] == 3


def test_keys_of_the_second_version_buy_from_anybody(store: KeyStore, path: Path) -> None:
    store.create("laptop", "buyer")
    path.write_text(json.dumps({"version": 2, "keys": [OLD_KEY | {"limits": LIMITS | {"velocity": 7}}]}))
    (old,) = store.list_keys()
    assert (old.limits, old.preferences) == (KeyLimits(velocity=7), ANY_OFFER)


def test_preferences_are_kept_and_changed_one_by_one_while_we_run(store: KeyStore, path: Path) -> None:
    running = KeyStore(path)
    wanted = Preferences(
        "price", 500, frozenset({NODE}), frozenset({OTHER}), frozenset({NODE}), frozenset({"Q8_0"}), "count-checked"
    )
    key, token = store.create("laptop", "buyer", preferences=wanted)
    assert running.authenticate(token) == key
    assert key.preferences == wanted
    changed = store.change(key.id, {}, {"allow": None, "quantisation": ["q4_k_m"]})
    assert changed.preferences == replace(wanted, allow=None, quantisations=frozenset({"Q4_K_M"}))
    assert running.authenticate(token) == changed
    assert store.change(key.id, {"velocity": 1}).preferences == changed.preferences


def test_keys_with_all_that_they_may_say_fit_the_file() -> None:
    nodes = frozenset(NodeKey(bytes([n]) * 32) for n in range(MAX_NODES))
    words = frozenset(chr(0x10000 + n) * (MAX_QUANTISATION_BYTES // 4) for n in range(MAX_ALTERNATIVES))
    full = Preferences(
        "latency", MAX_LIMIT, nodes, nodes, frozenset(list(nodes)[:MAX_ALTERNATIVES]), words, "count-checked"
    )
    names = chr(0x10000) * keys_module.MAX_NAME_CHARACTERS
    limits = KeyLimits(MAX_LIMIT, MAX_LIMIT, MAX_LIMIT, MAX_LIMIT, MAX_LIMIT)
    key = ApiKey("key-12345678", names, "read-only", GROUPS["EU"], 2**53, "ab" * 32, limits, full)
    assert len(keys_module._serialise([key])) * keys_module.MAX_KEYS < keys_module.MAX_FILE_BYTES


def test_a_new_key_spends_five_credits_an_hour_at_most(store: KeyStore) -> None:
    key, _ = store.create("laptop", "buyer")
    assert key.limits.allowance == Allowance(hour=5_000_000, day=None, total=None)


def test_limits_are_changed_one_by_one_while_we_run(store: KeyStore, path: Path) -> None:
    running = KeyStore(path)
    key, token = store.create("laptop", "buyer", None, KeyLimits(budget_day=2, budget_total=50))
    assert running.authenticate(token) == key
    changed = store.change(key.id, {"budget_day": None, "velocity": 7})
    assert changed.limits == KeyLimits(budget_total=50, velocity=7)
    assert running.authenticate(token) == changed
    assert changed.limits.allowance == Allowance(hour=7, day=None, total=50)
    with pytest.raises(KeyNotFound):
        store.change("key-none", {"velocity": 1})


def damaged(**changes: object) -> str:
    key = {
        "id": "key-1",
        "name": "n",
        "scope": "buyer",
        "jurisdictions": [],
        "created_ms": 1,
        "token_sha256": "ab" * 32,
        "limits": LIMITS,
        "preferences": {},
        **changes,
    }
    return json.dumps({"version": 3, "keys": [{name: value for name, value in key.items() if value is not None}]})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"version": 4, "keys": []}',
        '{"version": true, "keys": []}',
        '{"version": 2, "keys": {}}',
        json.dumps({"version": 1, "keys": [OLD_KEY | {"extra": 1}]}),
        '{"version": 1, "keys": [1]}',
        damaged(name=None),
        damaged(extra="x"),
        damaged(created_ms="1"),
        damaged(created_ms=True),
        damaged(scope="god"),
        damaged(token_sha256="short"),
        damaged(token_sha256="é" * 64),
        damaged(jurisdictions="DE"),
        damaged(jurisdictions=["XX"]),
        damaged(limits=None),
        damaged(limits=[]),
        damaged(limits={}),
        damaged(limits=LIMITS | {"another": 1}),
        damaged(limits=LIMITS | {"velocity": -1}),
        damaged(limits=LIMITS | {"velocity": 1.5}),
        damaged(limits=LIMITS | {"budget_day": True}),
        damaged(limits=LIMITS | {"budget_day": 2**53}),
        damaged(preferences=None),
        damaged(preferences=[]),
        damaged(preferences={"max_prize": 5}),
        damaged(preferences={"max_price": 5.0}),
        damaged(preferences={"allow": []}),
        damaged(preferences={"allow": ["ab" * 31]}),
        damaged(preferences={"digest": "é" * 64}),
        damaged(preferences={"min_assurance": "trusted"}),
        damaged(knowledge_assurance="sometimes"),
        damaged(knowledge_assurance=None),
    ],
)
def test_a_damaged_file_is_refused_and_kept(store: KeyStore, path: Path, content: str) -> None:
    store.create("laptop", "buyer")
    path.write_text(content)
    for use in (store.list_keys, lambda: store.authenticate("ryv_x"), lambda: store.create("b", "buyer")):
        with pytest.raises(KeysCorrupt, match=r"keys\.json"):
            use()
    assert path.read_text() == content


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "keys.json"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(KeysCorrupt):
        KeyStore(path).list_keys()


def test_whom_a_key_sends_passages_to_is_kept_and_changed(store: KeyStore, path: Path) -> None:
    key, token = store.create("laptop", "buyer", knowledge_assurance="never")
    assert KeyStore(path).authenticate(token) == key
    assert store.change(key.id, {"budget_day": 5}).knowledge_assurance == "never"
    changed = store.change(key.id, {}, knowledge_assurance="count-checked")
    assert (changed.knowledge_assurance, changed.limits.budget_day) == ("count-checked", 5)
    assert KeyStore(path).find(key.id) == changed


def test_the_owner_is_found_without_being_in_the_file(store: KeyStore) -> None:
    assert store.find("control") == OWNER
    assert store.find("key-00000000") is None
    assert store.list_keys() == ()


def test_the_endpoint_knows_every_scope() -> None:
    assert set(ALLOWED) == set(SCOPES)
