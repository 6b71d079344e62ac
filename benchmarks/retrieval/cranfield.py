"""The Cranfield collection (Cleverdon 1967) out of the files that it is handed on in: cran.all.1400, cran.qry, cranqrel."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from benchmarks.retrieval.collection import Collection, Document, Question, Wanted

_ENTRY: Final = re.compile(r"^\.I (\d+)\s*$", re.MULTILINE)
_FIELD: Final = re.compile(r"^\.([TABW])\s*$", re.MULTILINE)
_RELEVANT: Final = ("1", "2", "3", "4")
"""From a complete answer to one of little interest; 5 and -1 are none."""


def cranfield(folder: Path) -> Collection:
    """1,400 abstracts as text files, 225 questions. Judgements count questions from 1 in their order, not by their ids."""
    documents = [
        Document(f"{number}.txt", f"{fields['T']}\n\n{fields['W'].removeprefix(fields['T']).strip()}".encode())
        for number, fields in _entries(folder / "cran.all.1400")
    ]
    filled = {document.filename for document in documents if document.data.strip()}
    relevant = defaultdict[int, list[Wanted]](list)
    for line in (folder / "cranqrel").read_text("ascii").splitlines():
        question, number, grade, *_ = line.split()
        if grade in _RELEVANT and f"{number}.txt" in filled:
            relevant[int(question)].append(Wanted(f"{number}.txt"))
    questions = [
        Question(" ".join(fields["W"].split()), tuple(relevant[place]), "abstracts")
        for place, (_, fields) in enumerate(_entries(folder / "cran.qry"), start=1)
        if relevant[place]
    ]
    return Collection(
        "cranfield", tuple(document for document in documents if document.filename in filled), tuple(questions)
    )


def _entries(path: Path) -> list[tuple[int, dict[str, str]]]:
    _, *parts = _ENTRY.split(path.read_text("latin-1"))
    entries: list[tuple[int, dict[str, str]]] = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        _, *fields = _FIELD.split(text)
        named = defaultdict[str, str](str)
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            named[name] += value.strip()
        entries.append((int(number), named))
    return entries
