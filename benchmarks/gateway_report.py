"""What `benchmarks.gateway` found, as a table."""

from __future__ import annotations

from typing import Any

_COLUMNS = ("streams", "path", "first token, ms", "added, ms", "requests/s", "CPU ms a request")

_RATIOS = ("streams", "added to the first token, ours / LiteLLM", "requests/s, ours / LiteLLM", "straight / LiteLLM")


def table(results: dict[str, Any]) -> str:
    """Markdown that is read as plain text too."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for streams, ways in results["details"].items():
        for name, way in ways.items():
            figures = [way["ttft_ms"], way.get("ttft_added_ms", ""), way["rps"], way["cpu_ms"] or ""]
            lines.append(f"| {' | '.join(map(str, [streams, name, *figures]))} |")
    lines += ["", f"| {' | '.join(_RATIOS)} |", "|---" * len(_RATIOS) + "|"]
    for streams in results["details"]:
        ratios = [results[f"{name}_{streams}"] for name in ("ttft_ratio", "rps_ratio", "rps_limit")]
        lines.append(f"| {' | '.join(map(str, [streams, *ratios]))} |")
    lines.append("")
    lines.append(f"Other programs took {results['busy_elsewhere']:.0%} of the processors meanwhile.")
    return "\n".join(lines)
