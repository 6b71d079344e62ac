"""Source code of any language: a block for each definition, or each part between empty lines."""

from __future__ import annotations

import re
from typing import Final

from ryvion_node.knowledge.reading.builder import TextBuilder, clean
from ryvion_node.knowledge.reading.outline import Outline

_DEFINITION: Final = re.compile(
    r"[ \t]*(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|override|open|sealed|data"
    r"|partial|extern|unsafe|virtual|inline|const|pub(?:\([a-z:]{1,40}\))?)[ \t]+){0,6}"
    r"(?:class|def|defp|defmodule|fn|func|fun|function|interface|struct|enum|trait|impl|module|namespace|object|record|sub"
    r"|message|service|type|resource)[ \t]+(?:\([^()\n]{0,80}\)[ \t]*)?([A-Za-z_$](?:::|[\w$.]){0,80})"
)
_CLOSING: Final = ("}", ")", "]", "end", "</")


def read_code(text: str, builder: TextBuilder) -> None:
    """Add its blocks; the headings of each are the definitions that it stands in, its own included."""
    outline = Outline()
    block: list[str] = []
    path: tuple[str, ...] = ()
    after_gap = True
    for line in clean(text).split("\n"):
        if not line.strip():
            after_gap = True
            block.append("")
            continue
        definition = _DEFINITION.match(line)
        indentation = len(line) - len(line.lstrip())
        begins = after_gap and (definition is not None or not indentation) and not line.lstrip().startswith(_CLOSING)
        if begins and any(block):
            builder.add("code", "\n".join(block), path)
            block, path = [], ()
        if definition is not None and (not path or indentation == 0):
            outline.enter(indentation, definition[1])
            path = path or outline.path
        elif begins:
            outline.leave(indentation)
            path = outline.path
        block.append(line)
        after_gap = False
    builder.add("code", "\n".join(block), path)
