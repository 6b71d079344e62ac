"""What the command line must not load just to say what it can do."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("libp2p", "llama_cpp", "numpy", "trio", "pydantic", "openai", "httpx", "rich", "sqlite3", "starlette")


@pytest.mark.parametrize("arguments", [["--help"], ["up", "--help"], ["receipts", "verify", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from ryvion_node.cli import main\n"
        f"sys.argv = ['ryvion-node', *{arguments!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "loaded:"
