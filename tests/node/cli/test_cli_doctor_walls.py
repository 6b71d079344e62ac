"""Doctor says what keeps a model's process from the rest of the machine."""

from __future__ import annotations

import pytest

from ryvion_node.cli.doctor import machine
from ryvion_node.walls import landlock, seccomp


@pytest.mark.parametrize(
    ("calls", "files", "said"),
    [
        (True, 7, "without network, other programs and your files"),
        (True, 0, "no network, but can read your files"),
        (False, 3, "can use the network"),
        (False, 0, "can use the network and read your files"),
    ],
)
def test_missing_walls_are_named(monkeypatch: pytest.MonkeyPatch, calls: bool, files: int, said: str) -> None:
    monkeypatch.setattr(seccomp, "is_offered", lambda: calls)
    monkeypatch.setattr(landlock, "version", lambda: files)
    monkeypatch.setattr(machine, "probe_devices", list)
    (walls,) = (finding for finding in machine.examine_machine(sells=True) if finding.subject == "walls")
    assert said in walls.detail
    assert (walls.outcome == "ok") == (calls and files > 0)
