"""The last step of the demo: export a receipt and verify the file, with the commands that anybody would use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ryvion_node.cli.demo.events import ReceiptVerified
from ryvion_node.paths import Paths

COMMAND_TIMEOUT_S = 30.0


def verify_offline(requester: Paths, job_id: str, answer: str, folder: Path) -> ReceiptVerified:
    """`receipts export`, then `receipts verify` on the file in a process that knows no home, node or network."""
    receipt_file, answer_file = folder / "receipt.json", folder / "answer.txt"
    answer_file.write_text(answer, "utf-8", newline="")
    exported = _run("receipts", "export", job_id, "--home", str(requester.home), "--output", str(receipt_file))
    if exported.returncode != 0:
        return ReceiptVerified(str(receipt_file), exported.returncode, (), _last_line(exported.stderr))
    verified = _run("receipts", "verify", str(receipt_file), "--answer", str(answer_file), "--json")
    try:
        verdicts = tuple(json.loads(verified.stdout)["receipts"])
    except (ValueError, KeyError):
        verdicts = ()
    error = _last_line(verified.stderr) if verified.returncode != 0 else ""
    return ReceiptVerified(str(receipt_file), verified.returncode, verdicts, error)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ryvion_node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
