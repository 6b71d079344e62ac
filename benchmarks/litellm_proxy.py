"""LiteLLM's proxy as a process, set up as its documentation has it for production."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.load import Target
from benchmarks.processes import free_port, running
from benchmarks.upstream import MODEL

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venvs" / "litellm-proxy"
_KEY = "sk-benchmark"


class NotInstalled(SystemExit):
    """LiteLLM's proxy lives in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"LiteLLM's proxy is not installed in {folder}: run scripts/client_envs litellm-proxy.")


def find_proxy(folder: Path) -> Path:
    """Its command; raises NotInstalled."""
    command = folder / "bin" / "litellm"
    if not command.exists():
        raise NotInstalled(folder)
    return command


@asynccontextmanager
async def litellm_proxy(command: Path, folder: Path, upstream: str, workers: int) -> AsyncIterator[tuple[Target, int]]:
    """Start it in front of `upstream`, an URL up to /v1; gives where to ask, and its process id."""
    config = folder / "litellm.json"
    config.write_text(json.dumps(_config(upstream)))  # JSON is YAML too
    port = free_port()
    serve = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)]
    async with running(
        [str(command), *serve], port, "/health/liveliness", env=_environment(), log=folder / "litellm.log"
    ) as process:
        yield Target(f"http://127.0.0.1:{port}/v1", _KEY, MODEL), process.pid


def _config(upstream: str) -> dict[str, object]:
    """A key, no database, no cache, no callbacks, no retries that would hide a failure."""
    engine = {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": "none"}
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": engine}],
        "general_settings": {"master_key": _KEY, "disable_error_logs": True},
        "litellm_settings": {"set_verbose": False, "request_timeout": 600, "num_retries": 0},
    }


def _environment() -> dict[str, str]:
    without = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return without | {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # Else it looks for the newest list of prices in the internet before it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
