"""Schemas that leave no room for what nobody asked for."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.worker.closing import closed

TEXT = {"type": "string"}
ONE = {"type": "object", "properties": {"a": TEXT}}
SHUT = ONE | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (ONE, SHUT),
        ({"type": "array", "items": ONE}, {"type": "array", "items": SHUT}),
        ({"anyOf": [ONE, {"type": "null"}]}, {"anyOf": [SHUT, {"type": "null"}]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": ONE}}, {"$ref": "#/$defs/x", "$defs": {"x": SHUT}}),
        (ONE | {"properties": {"properties": ONE}}, SHUT | {"properties": {"properties": SHUT}}),
        (ONE | {"properties": {"required": ONE}}, SHUT | {"properties": {"required": SHUT}}),
    ],
)
def test_objects_are_closed(schema: dict[str, object], wanted: dict[str, object]) -> None:
    assert closed(schema) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        ONE | {"additionalProperties": True},
        ONE | {"additionalProperties": TEXT},
        {"type": "object"},
        {"type": "object", "properties": {}},
        ONE | {"required": ["b"]},
        ONE | {"minProperties": 2},
        ONE | {"patternProperties": {"^b": TEXT}},
        {"allOf": [ONE, {"properties": {"b": TEXT}}]},
        ONE | {"anyOf": [{"properties": {"b": TEXT}}, {"properties": {"c": TEXT}}]},
        ONE | {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"b": TEXT}}}},
        {"type": "object", "const": ONE, "enum": [ONE], "default": ONE, "examples": [ONE]},
    ],
)
def test_what_may_have_more_stays_open(schema: dict[str, object]) -> None:
    assert closed(schema) == schema


NAMES = st.sampled_from(["a", "b", "properties", "required"])
SCHEMAS = st.recursive(
    st.sampled_from([TEXT, {"type": "integer"}, {"type": "null"}]),
    lambda inner: st.one_of(
        st.builds(
            lambda properties, required: {"type": "object", "properties": properties, "required": required},
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(NAMES, unique=True, max_size=2),
        ),
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(lambda both: {"anyOf": both}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=8,
)
VALUES = st.recursive(
    st.sampled_from(["x", 1, None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
def test_whatever_the_closed_schema_takes_the_open_one_takes(schema: dict[str, object], value: object) -> None:
    if jsonschema.Draft202012Validator(closed(schema)).is_valid(value):
        assert jsonschema.Draft202012Validator(schema).is_valid(value)
