"""The random-weight models that speed is measured with: they load, are reproducible, and never end an answer early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ryvion_node.engine.files import file_digest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
LONGEST_ANSWER_TOKENS = 320


def run(module: str, *arguments: str, lines: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )
    return done.stdout


def test_writes_whole_words_until_it_is_stopped(tmp_path: Path) -> None:
    path, again = tmp_path / "random.gguf", tmp_path / "again.gguf"
    for file in (path, again):
        run("tiny_model.random_model", str(file), "--parameters", "6000000", "--seed", "7")
    assert file_digest(path)[0] == file_digest(again)[0]
    question = json.dumps({"messages": [["user", "Hello"]]})
    answer = json.loads(run("tiny_model.play", str(path), lines=question))
    assert answer["tokens"] == LONGEST_ANSWER_TOKENS
    assert answer["answer"].startswith(" ")
    assert len(answer["answer"].split()) == LONGEST_ANSWER_TOKENS
