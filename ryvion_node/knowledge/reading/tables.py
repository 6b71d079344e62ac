"""CSV and TSV: each row as `name: value | name: value`, so that it says what it means wherever it is cut."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument

_DELIMITERS: Final = ",;\t|"
_SAMPLE_CHARS: Final = 16 * 1024
_SAMPLE_ROWS: Final = 20


def read_table(text: str, builder: TextBuilder) -> None:
    """Add one block with all rows. Raises UnreadableDocument."""
    csv.field_size_limit(limits.MAX_CELL_CHARS)
    # The csv module ends a row at any of them, within quotes too.
    rows = csv.reader(io.StringIO(text.replace("\r\n", "\n").replace("\r", "\n")), delimiter=_delimiter(text))
    names: list[str] | None = None
    lines: list[str] = []
    size = 0
    try:
        for row in rows:
            cells = [" ".join(cell.split()) for cell in row]
            if len(cells) > limits.MAX_COLUMNS:
                raise UnreadableDocument(
                    f"row {rows.line_num} has more than {limits.MAX_COLUMNS:,} columns: keep those that say something"
                )
            if names is None and any(cells):
                names = cells if _is_header(cells) else []
                if names:
                    lines.append(" | ".join(names))
                    continue
            line = _line(names or [], cells)
            size += len(line)
            if size > limits.MAX_TEXT_CHARS:
                # The builder would say so too, after twice the memory.
                break
            if line:
                lines.append(line)
    except csv.Error as exc:
        raise UnreadableDocument(
            f"row {rows.line_num} is no CSV ({exc}): check its quotes, or export the table anew"
        ) from exc
    builder.add("table", "\n".join(lines))


def _delimiter(text: str) -> str:
    """The one that splits the first rows into the same number of cells, and into most of them."""
    sample = text[:_SAMPLE_CHARS].splitlines(keepends=True)
    # The last row of a sample may be cut.
    lines = sample[:_SAMPLE_ROWS] if len(text) <= _SAMPLE_CHARS or len(sample) < 2 else sample[:-1][:_SAMPLE_ROWS]

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            return (0, 0)
        width, rows = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        return (rows, width) if width > 1 else (0, 0)

    return max(_DELIMITERS, key=fit)


def _is_header(cells: list[str]) -> bool:
    """Names: each once, none missing, none a number."""
    return len(cells) > 1 and all(cells) and len(set(cells)) == len(cells) and not any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _line(names: list[str], cells: list[str]) -> str:
    if not names:
        return " | ".join(cells) if any(cells) else ""
    named = (f"{name}: {cell}" for name, cell in zip(names, cells, strict=False) if cell)
    return " | ".join([*named, *filter(None, cells[len(names) :])])
