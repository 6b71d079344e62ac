"""`python -m ryvion_node.knowledge.reading PARENT MEMORY_BYTES CPU_S NAME`: a file on stdin, its text on stdout.

Only `process.py` runs it, once for each document, so it starts with as few imports as it can.
"""

from __future__ import annotations

import os
import sys

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.answer import pack_document, pack_unreadable
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.walls.isolation import confine, isolate, limit_memory, limit_processor, take_stdout


def main() -> None:
    """Build the walls first, read after."""
    parent, memory_bytes, cpu_s, filename = sys.argv[1:]
    isolate(int(parent), walls=True, open_files=limits.READER_OPEN_FILES)
    out = take_stdout()
    confine((), has_gpu=False)
    limit_memory(int(memory_bytes))
    limit_processor(int(cpu_s))
    answer = _answer(sys.stdin.buffer.read(limits.MAX_FILE_BYTES + 1), filename)
    with os.fdopen(out, "wb") as stdout:
        stdout.write(answer)
        stdout.flush()
        # Nothing is left to put in order, and taking large documents apart takes time.
        os._exit(0)


def _answer(data: bytes, filename: str) -> bytes:
    try:
        return pack_document(read_document(data, filename))
    except UnreadableDocument as exc:
        return pack_unreadable(str(exc))
    except MemoryError:
        return pack_unreadable("it takes too much memory to read: split it into several files")
    except Exception as exc:  # noqa: BLE001 - a damaged file makes a library raise anything
        what = type(exc).__name__
        return pack_unreadable(f"it is damaged ({what}): open it in the program that made it and save it anew")


if __name__ == "__main__":
    main()
