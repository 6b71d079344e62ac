"""Knowledge bases: how fast documents are taken in and passages are found.

    python -m benchmarks.knowledge [--quick] [--json]

`search_p95_ms_100k` is a hybrid search over 100,000 passages with the longest vectors measured, in milliseconds without
the time that an embedding model needs for the query.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import trio

from benchmarks import knowledge_scale


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as name:
        plan = knowledge_scale.QUICK if options.quick else knowledge_scale.FULL
        results = trio.run(knowledge_scale.measure, plan, Path(name))
    if options.json:
        print(json.dumps(results))
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}")
    for key, value in results.items():
        print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
