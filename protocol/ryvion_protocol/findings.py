"""What was found about an exported receipt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `absent` means that the file does not say."""

    name: str
    outcome: Literal["passed", "failed", "absent"]
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was found about one receipt."""

    job_id: str
    cid: str
    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        return all(finding.outcome != "failed" for finding in self.findings)
