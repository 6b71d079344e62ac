"""Countries and groups of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.jurisdictions import COUNTRIES, GROUPS, JurisdictionUnknown, parse_country, parse_jurisdiction
from ryvion_protocol.constants import MAX_JURISDICTIONS


def test_the_list_is_whole() -> None:
    assert len(COUNTRIES) == 249 + 1
    assert all(len(code) == 2 and code.isalpha() and code.isupper() and name for code, name in COUNTRIES.items())
    assert list(COUNTRIES) == sorted(COUNTRIES)
    assert len(set(COUNTRIES.values())) == len(COUNTRIES)


def test_groups_have_their_members() -> None:
    assert len(GROUPS["EU"]) == 27
    assert set(GROUPS["EEA"]) - set(GROUPS["EU"]) == {"IS", "LI", "NO"}
    for members in GROUPS.values():
        assert set(members) <= set(COUNTRIES)
        assert len(members) <= MAX_JURISDICTIONS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("DE", ("DE",)),
        (" ca ", ("CA",)),
        ("fr,DE", ("DE", "FR")),
        ("de,DE", ("DE",)),
        ("eu", GROUPS["EU"]),
        ("EU, EEA", GROUPS["EEA"]),
    ],
)
def test_legal_texts(text: str, wanted: tuple[str, ...]) -> None:
    assert parse_jurisdiction(text) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("UK", r"did you mean GB \(United Kingdom\)"),
        ("Germany", r"did you mean DE"),
        ("canda", r"did you mean CA"),
        ("ZZ", "or a group: EU, EEA"),
        ("", "is empty"),
        ("DE,", "is empty"),
        ("D" * 600, "too long"),
        (",".join(list(COUNTRIES)[:65]), "65 countries are too many"),
    ],
)
def test_an_illegal_text_is_explained(text: str, says: str) -> None:
    with pytest.raises(JurisdictionUnknown, match=says):
        parse_jurisdiction(text)


def test_a_node_is_in_one_country() -> None:
    assert parse_country("de") == "DE"
    with pytest.raises(JurisdictionUnknown, match="a group"):
        parse_country("EU")
    with pytest.raises(JurisdictionUnknown, match="no jurisdiction"):
        parse_country("DE,FR")


@settings(deadline=None)
@given(st.text(max_size=700))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        codes = parse_jurisdiction(text)
    except JurisdictionUnknown as refused:
        shown = str(refused)
        assert len(shown) < 300
    else:
        assert 0 < len(codes) <= MAX_JURISDICTIONS
