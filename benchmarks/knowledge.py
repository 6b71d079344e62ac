"""Knowledge bases: how fast documents are taken in and passages are found, and how often those that answer.

    python -m benchmarks.knowledge [--quick] [--json] [--cranfield FOLDER] [--only scale|quality]

`search_p95_ms_100k` is a hybrid search over 100,000 passages with the longest vectors measured, in milliseconds without
the time that an embedding model needs for the query. `recall5_*` and `ndcg10_*` are of the test half of the repository's own
collection; `--cranfield` adds the collection of that name from a folder with cran.all.1400, cran.qry and cranqrel.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import trio

from benchmarks import knowledge_quality, knowledge_scale


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cranfield", type=Path, help="a folder with that collection")
    parser.add_argument("--only", choices=("scale", "quality"), help="leave the other out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as name:
        plan = knowledge_scale.QUICK if options.quick else knowledge_scale.FULL
        results: dict[str, Any] = {}
        if options.only != "quality":
            results |= trio.run(knowledge_scale.measure, plan, Path(name))
        if options.only != "scale":
            measure = partial(
                knowledge_quality.measure, Path(name), quick=options.quick, cranfield_folder=options.cranfield
            )
            results |= trio.run(measure)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}")
    for key, value in results.items():
        if "recall5" not in key and "ndcg10" not in key:
            print(f"{key:28} {value}")
    if options.only != "scale":
        print(*knowledge_quality.table(results), sep="\n")


if __name__ == "__main__":
    main()
