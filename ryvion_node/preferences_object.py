"""The `ryvion` object: preferences as requests, the key file and the command line write them.

A key that is not known here is refused by name: a misspelt limit must not let everybody through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from ryvion_node.config_values import parse_digest
from ryvion_node.p2p.peer_id import parse_node
from ryvion_node.preferences import Assurance, Preferences, Sort
from ryvion_protocol.constants import MAX_METERING_UNITS
from ryvion_protocol.schema import NodeKey

T = TypeVar("T")

MAX_NODES: Final = 64
"""In one list: more than a person picks by hand, and a key's lists stay a few KB."""
MAX_ALTERNATIVES: Final = 16
"""Files, or quantisations, of one model that will do."""
MAX_QUANTISATION_BYTES: Final = 64
"""As long as an offer can say it."""


def _parsed(parse: Callable[[str], object]) -> PlainValidator:
    """A text as `parse` reads it, which raises ValueError with what is wrong."""

    def read(value: object) -> object:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "Input should be a valid string")
        try:
            return parse(value)
        except ValueError as exc:
            raise PydanticCustomError("unreadable", "{problem}", {"problem": str(exc)}) from None

    return PlainValidator(read)


def _parse_quantisation(text: str) -> str:
    word = text.strip().upper()
    if not (word and word.isprintable() and len(word.encode()) <= MAX_QUANTISATION_BYTES):
        raise ValueError(f"a quantisation is a short word such as Q4_K_M, of at most {MAX_QUANTISATION_BYTES} bytes")
    return word


_NODE_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": "^([0-9a-f]{64}|12D3KooW[1-9A-HJ-NP-Za-km-z]{44})$"}
_DIGEST_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": "^(sha256:)?[0-9a-f]{64}$"}
_QUANTISATION_SCHEMA: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": MAX_QUANTISATION_BYTES}

Node = Annotated[NodeKey, _parsed(parse_node), WithJsonSchema(_NODE_SCHEMA)]
"""Its key in hex, or its peer id."""
Digest = Annotated[bytes, _parsed(parse_digest), WithJsonSchema(_DIGEST_SCHEMA)]
Quantisation = Annotated[str, _parsed(_parse_quantisation), WithJsonSchema(_QUANTISATION_SCHEMA)]
"""In any case."""


def _one_or_many(value: object) -> str:
    return "<many>" if isinstance(value, list) else "<one>"


OneOrMany = Annotated[
    Annotated[T, Tag("<one>")] | Annotated[list[T], Field(min_length=1, max_length=MAX_ALTERNATIVES), Tag("<many>")],
    Discriminator(_one_or_many),
]


class PreferencesObject(BaseModel):
    """Whom a caller wants to buy from. All but `sort` are limits: an executor that does not keep one is not asked."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    sort: Sort | None = None
    """What bids are ranked by. `balanced` when left out."""
    max_price: Annotated[int, Field(ge=0, le=MAX_METERING_UNITS)] | None = None
    """Most that the whole answer may cost, in micro-credits."""
    allow: Annotated[list[Node], Field(min_length=1, max_length=MAX_NODES)] | None = None
    """Only these nodes: keys in hex, or peer ids."""
    deny: Annotated[list[Node], Field(max_length=MAX_NODES)] | None = None
    """None of these nodes."""
    digest: OneOrMany[Digest] | None = None
    """Only this model file, or one of these: SHA-256 in hex."""
    quantisation: OneOrMany[Quantisation] | None = None
    """Only this quantisation, or one of these, as offers name them; case does not matter."""
    min_assurance: Assurance | None = None
    """`count-checked`: only executors whose bill can be recounted here with the model's own tokenizer."""

    def values(self) -> Preferences:
        """What they come to."""
        return Preferences(
            sort=self.sort,
            max_price=self.max_price,
            allow=_set(self.allow),
            deny=_set(self.deny) or frozenset(),
            digests=_set(self.digest),
            quantisations=_set(self.quantisation),
            min_assurance=self.min_assurance or "signed",
        )


def preferences_object(preferences: Preferences) -> dict[str, object]:
    """The same as plain JSON values, without what is not limited; `PreferencesObject` reads it again."""
    given: dict[str, object] = {
        "sort": preferences.sort,
        "max_price": preferences.max_price,
        "allow": _hex(preferences.allow),
        "deny": _hex(preferences.deny) or None,
        "digest": _hex(preferences.digests),
        "quantisation": None if preferences.quantisations is None else sorted(preferences.quantisations),
        "min_assurance": None if preferences.min_assurance == "signed" else preferences.min_assurance,
    }
    return {name: value for name, value in given.items() if value is not None}


def _set(given: T | list[T] | None) -> frozenset[T] | None:
    if given is None:
        return None
    return frozenset(given) if isinstance(given, list) else frozenset((given,))


def _hex(values: frozenset[NodeKey] | frozenset[bytes] | None) -> list[str] | None:
    return None if values is None else sorted(value.hex() for value in values)
