"""What doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `subject` is stable, `detail` says what was found, `mend` what to do about it (empty when ok)."""

    subject: str
    outcome: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""


def ok(subject: str, detail: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", detail)


def warn(subject: str, detail: str, mend: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(subject, "warn", detail, mend)


def fail(subject: str, detail: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(subject, "fail", detail, mend)
