"""The form of a vector file, and how generators write or check one (specs/README.md, "Vectors")."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ryvion_protocol.any_message import Message
from ryvion_protocol.codec import encode_body, pack_value
from ryvion_protocol.signing import SigningIdentity
from specs.samples import IDENTITIES, SEEDS

FOLDER: Final = Path(__file__).parent / "vectors"
JsonValue = str | int | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


@dataclass(frozen=True, slots=True)
class Vector:
    """One input and the one thing that must come of it."""

    id: str
    requirements: tuple[str, ...]
    comment: str
    operation: str
    """What to do with the input; the README lists them."""
    input: bytes
    keys: tuple[str, ...] = ()
    """Names of the identities whose keys occur."""
    given: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further arguments of the operation."""
    expect: str = "ok"
    error_code: str = ""
    gives: Mapping[str, JsonValue] = field(default_factory=dict)
    """What comes out, when `expect` is ok."""

    def to_json(self, spec: str) -> dict[str, JsonValue]:
        return {
            "id": self.id,
            "spec": spec,
            "requirements": list(self.requirements),
            "comment": self.comment,
            "operation": self.operation,
            "input_hex": self.input.hex(),
            "keys": {name: IDENTITIES[name].public_key.hex() for name in self.keys},
            "given": dict(self.given),
            "expect": self.expect,
            "error_code": self.error_code,
            "gives": dict(self.gives),
        }


def family_text(spec: str, family: str, vectors: Sequence[Vector]) -> str:
    """The file of one family."""
    ids = [vector.id for vector in vectors]
    if len(set(ids)) != len(ids):
        raise ValueError("two vectors have the same id")
    content = {
        "spec": spec,
        "family": family,
        "generated_by": f"python -m specs.generate_{family}",
        "seeds": {name: seed.hex() for name, seed in SEEDS.items()},
        "vectors": [vector.to_json(spec) for vector in vectors],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main(spec: str, family: str, vectors: Callable[[], Sequence[Vector]]) -> None:
    """Write the family's file, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=f"Write the vectors of specs/vectors/{family}.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is out of date")
    arguments = parser.parse_args()
    path, text = FOLDER / f"{family}.json", family_text(spec, family, vectors())
    if not arguments.check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        sys.exit(f"{path} is out of date: run python -m specs.generate_{family}")


def refused_alone(
    name: str, requirement: str, comment: str, message: Message, signer: SigningIdentity | None, code: str
) -> Vector:
    """A packet that breaks a rule between its own fields."""
    raw = unchecked(message, signer)
    given: dict[str, JsonValue] = {"allowed": [message.TYPE]}
    return Vector(name, (requirement,), comment, "packet", raw, (), given, "payload-invalid", code)


def unchecked(message: Message, signer: SigningIdentity | None) -> bytes:
    """A packet that `pack` would refuse to make."""
    body = encode_body(message)
    signature = b"" if signer is None else signer.sign_typed(message.TYPE, body)
    return pack_value((message.TYPE, body, signature))


def plain(value: object) -> JsonValue:
    """A message or a part of one as JSON: bytes in hex, dataclasses as objects."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form here")
