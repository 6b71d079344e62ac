"""What `benchmarks.engine` found, as a table and as a picture."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

NAMES = {"ours": "our worker", "server": "", "serial": "our worker, one job at a time"}


def table(results: dict[str, Any]) -> str:
    """Markdown that is read as plain text too."""
    server = results["server"]
    lines = [
        f"| jobs at once | ours, tokens/s | {server} | one at a time | over {server} | over one at a time "
        f"| ms per token, p95 of gaps | {server} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, parts in results["details"].items():
        speeds = [f"{parts[name]['tokens_per_s']:.0f}" for name in NAMES]
        ratios = [f"{results[f'vs_server_{size}']:.2f}", f"{results[f'vs_serial_{size}']:.2f}"]
        latency = [f"{parts[name]['token_ms_p50']}, {parts[name]['gap_ms_p95']}" for name in ("ours", "server")]
        lines.append(f"| {' | '.join([size, *speeds, *ratios, *latency])} |")
    lines.append("")
    lines.append(f"Other programs took at most {results['busy_elsewhere']:.0%} of the processors in these rounds.")
    lines.append(
        f"Lag of the node's event loop with {size} jobs, p99: {results['lag_p99_ms']} ms (aim: at most 20 ms)."
    )
    return "\n".join(lines)


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """engine.md and engine.svg."""
    machine = f"{os.cpu_count()} {platform.machine()} cores, {results['threads']} threads"
    text = f"""# Decoding speed

`python -m benchmarks.engine --report docs/benchmarks` made this page: our worker, {results["server"]} on the same file
with the same threads, slots and context, and our worker with one job at a time; all three in one run, in alternating
rounds. Model: {results["parameters"] / 1e6:.0f}M random parameters, Q8_0; greedy; prompts are part of the time and differ, and no
prompt is kept. Machine: {machine}; the clients share it. Tokens/s are medians of the rounds, the ratios medians
of each round's ratio. The aims: at least 0.95 of llama-server, and never slower than one at a time. Our worker
hands tokens to the node in lots of 25 to 60 ms, which is what the gaps show; executors send buyers a frame every 30 to 120 ms.

{table(results)}

![tokens per second by jobs at once](engine.svg)
"""
    (folder / "engine.md").write_text(text, "utf-8")
    _draw(folder / "engine.svg", results)


def _draw(path: Path, results: dict[str, Any]) -> None:
    # Slow to import, and needed for a report only.
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # Letters stay letters, and the same figures give the same bytes.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "engine"})
    figure, axes = plt.subplots(figsize=(7, 4))
    sizes = [int(size) for size in results["details"]]
    for name, label in NAMES.items():
        speeds = [parts[name]["tokens_per_s"] for parts in results["details"].values()]
        axes.plot(sizes, speeds, marker="o", label=label or results["server"])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("jobs at once")
    axes.set_ylabel("tokens per second, all jobs together")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
