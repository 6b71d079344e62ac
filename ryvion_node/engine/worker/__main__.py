"""`python -m ryvion_node.engine.worker --parent PID`: serve a model; with --devices: list devices as JSON and end.

No walls stand around --devices, which opens no model, and none with --no-walls, which the owner may ask for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from ryvion_node.engine.constants import WORKER_OPEN_FILES
from ryvion_node.engine.wire import Failed, pack
from ryvion_node.walls.isolation import die_on_thread_errors, isolate, take_stdout


def main() -> None:
    """Isolate first, import the heavy libraries after."""
    parser = argparse.ArgumentParser(prog="ryvion_node.engine.worker")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--no-walls", action="store_true")
    arguments = parser.parse_args()
    walls = not (arguments.devices or arguments.no_walls)
    isolate(arguments.parent, walls=walls, open_files=WORKER_OPEN_FILES)
    frames_out = take_stdout()
    # A thread that renders a template must hand the interpreter back to the decode thread quickly.
    sys.setswitchinterval(0.0005)
    if arguments.devices:
        from ryvion_node.engine.worker.devices import devices

        os.write(frames_out, json.dumps(devices()).encode())
        return
    die_on_thread_errors()
    try:
        from ryvion_node.engine.worker.service import run
    except ImportError as exc:
        missing = f"models cannot run here, {exc.name} is not installed: install ryvion-node with its `executor` extra"
        os.write(frames_out, pack([Failed(missing)]))
        return
    run(frames_out, walls=walls)


if __name__ == "__main__":
    main()
