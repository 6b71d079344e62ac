"""Preferences: how two sets combine, and the object that requests, keys and the command line write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.preferences import ANY_OFFER, ASSURANCES, SORTS, Preferences
from ryvion_node.preferences_object import MAX_ALTERNATIVES, MAX_NODES, PreferencesObject, preferences_object
from ryvion_protocol.schema import NodeKey

NODES = [NodeKey(bytes([number]) * 32) for number in range(4)]
WORDS = ["Q4_K_M", "Q8_0", "F16"]


def some(values: list[bytes] | list[NodeKey] | list[str]) -> st.SearchStrategy[frozenset[object] | None]:
    return st.none() | st.frozensets(st.sampled_from(values), min_size=1)


SETS = st.builds(
    Preferences,
    sort=st.none() | st.sampled_from(SORTS),
    max_price=st.none() | st.integers(0, 2**53 - 1),
    allow=some(NODES),
    deny=st.frozensets(st.sampled_from(NODES)),
    digests=some(NODES),
    quantisations=some(WORDS),
    min_assurance=st.sampled_from(ASSURANCES),
)
OFFERS = st.tuples(st.sampled_from(NODES), st.sampled_from(NODES), st.sampled_from(WORDS), st.integers(0, 2**53))


def lets_through(preferences: Preferences, offer: tuple[NodeKey, bytes, str, int], *, counted: bool) -> bool:
    node, digest, word, price = offer
    return (
        (preferences.allow is None or node in preferences.allow)
        and node not in preferences.deny
        and (preferences.digests is None or digest in preferences.digests)
        and (preferences.quantisations is None or word in preferences.quantisations)
        and (preferences.max_price is None or price <= preferences.max_price)
        and (counted or preferences.min_assurance == "signed")
    )


@given(SETS, SETS, OFFERS, st.booleans())
def test_both_sets_together_let_through_what_passes_each(
    inner: Preferences, outer: Preferences, offer: tuple[NodeKey, bytes, str, int], counted: bool
) -> None:
    passes = lets_through(inner, offer, counted=counted) and lets_through(outer, offer, counted=counted)
    assert lets_through(inner.within(outer), offer, counted=counted) == passes
    assert inner.within(outer).sort == (inner.sort or outer.sort)


@given(SETS)
def test_what_is_written_is_read_again(preferences: Preferences) -> None:
    written = preferences_object(preferences)
    assert PreferencesObject.model_validate_json(json.dumps(written)).values() == preferences
    assert PreferencesObject.model_validate(written).values() == preferences


@given(st.text(max_size=70))
def test_any_quantisation_that_is_taken_is_read_again(word: str) -> None:
    try:
        taken = PreferencesObject.model_validate({"quantisation": word}).values()
    except ValidationError:
        return
    assert PreferencesObject.model_validate(preferences_object(taken)).values() == taken


def test_an_empty_object_asks_for_nothing() -> None:
    assert PreferencesObject.model_validate({}).values() == ANY_OFFER
    nothing = dict.fromkeys(PreferencesObject.model_fields)
    assert PreferencesObject.model_validate(nothing).values() == ANY_OFFER
    assert preferences_object(ANY_OFFER) == {}


def test_nodes_files_and_quantisations_as_people_write_them() -> None:
    written = {
        "allow": [NODES[1].hex(), peer_id_of(NODES[2])],
        "digest": f"sha256:{NODES[3].hex()}",
        "quantisation": [" q4_k_m", "Q8_0"],
    }
    assert PreferencesObject.model_validate(written).values() == Preferences(
        allow=frozenset({NODES[1], NODES[2]}),
        digests=frozenset({NODES[3]}),
        quantisations=frozenset({"Q4_K_M", "Q8_0"}),
    )


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ({"max_prize": 5}, ("max_prize",)),
        ({"sort": "cheap"}, ("sort",)),
        ({"max_price": True}, ("max_price",)),
        ({"max_price": -1}, ("max_price",)),
        ({"max_price": 2**53}, ("max_price",)),
        ({"allow": []}, ("allow",)),
        ({"allow": "ab" * 32}, ("allow",)),
        ({"allow": ["AB" * 32]}, ("allow", 0)),
        ({"allow": ["12D3KooW"]}, ("allow", 0)),
        ({"allow": [NODES[0].hex()] * (MAX_NODES + 1)}, ("allow",)),
        ({"deny": [NODES[0].hex(), 5]}, ("deny", 1)),
        ({"digest": []}, ("digest", "<many>")),
        ({"digest": "ab"}, ("digest", "<one>")),
        ({"digest": [NODES[0].hex()] * (MAX_ALTERNATIVES + 1)}, ("digest", "<many>")),
        ({"quantisation": " "}, ("quantisation", "<one>")),
        ({"quantisation": ["Q8_0", "\x1b[2J"]}, ("quantisation", "<many>", 1)),
        ({"quantisation": "ŉ" * 32}, ("quantisation", "<one>")),
        ({"min_assurance": "sampled"}, ("min_assurance",)),
    ],
)
def test_what_is_not_understood_is_refused_where_it_stands(written: object, where: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as in_python:
        PreferencesObject.model_validate(written)
    with pytest.raises(ValidationError) as in_json:
        PreferencesObject.model_validate_json(json.dumps(written))
    assert [caught.value.errors()[0]["loc"] for caught in (in_python, in_json)] == [where, where]
