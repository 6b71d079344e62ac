"""Small talk and longer answers out of talk.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Intent:
    """Several ways to ask for the same thing, and the one answer to all of them."""

    prompts: tuple[str, ...]
    answer: str


def table(name: str) -> dict[str, Any]:
    """One of the TOML files beside this module."""
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))


def intents() -> Sequence[Intent]:
    """Everything in talk.toml."""
    return [Intent(tuple(entry["prompts"]), str(entry["answer"])) for entry in table("talk")["intent"]]
