"""Collections: documents, and questions with the passages of them that answer."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Half = Literal["dev", "test"]


@dataclass(frozen=True, slots=True)
class Document:
    """A file as it is handed in."""

    filename: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What answers a question: a passage of a document, or a document as a whole."""

    filename: str
    passage: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """`wanted` in no order; one that finds any of them has an answer, one that finds all has all."""

    text: str
    wanted: tuple[Wanted, ...]
    kind: str

    @property
    def half(self) -> Half:
        """Tuning looks at `dev` only. By the hash of the words, so that a new question moves no other."""
        return "dev" if hashlib.sha256(self.text.encode()).digest()[0] % 2 else "test"


@dataclass(frozen=True, slots=True)
class Collection:
    """Questions are asked of all its documents at once."""

    name: str
    documents: tuple[Document, ...]
    questions: tuple[Question, ...]


def covers(passage: str, text: str) -> bool:
    """Does a text hold the whole passage? White space aside."""
    return " ".join(passage.split()) in " ".join(text.split())


def own() -> Collection:
    """The repository's own: written by hand and generated, all in one knowledge base."""
    from benchmarks.retrieval.generated import generated

    documents, questions = _written()
    for document, asked in generated():
        documents.append(document)
        questions.extend(asked)
    return Collection("own", tuple(documents), tuple(questions))


def written() -> Collection:
    """The part of it that was written by hand."""
    documents, questions = _written()
    return Collection("written", tuple(documents), tuple(questions))


def _written() -> tuple[list[Document], list[Question]]:
    documents, questions = [], []
    for name in ("manuals", "records", "prose"):
        source = files("benchmarks.retrieval").joinpath("written", f"{name}.toml")
        for entry in tomllib.loads(source.read_text("utf-8"))["document"]:
            documents.append(Document(entry["name"], entry["text"].strip().encode()))
            for asked in entry["questions"]:
                wanted = Wanted(entry["name"], asked["passage"])
                questions.append(Question(asked["asks"], (wanted,), asked["kind"]))
    return documents, questions
