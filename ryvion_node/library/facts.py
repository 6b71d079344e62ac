"""What a model's file says of itself, and the memory that it takes when it is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ryvion_node.config import ModelSection
from ryvion_node.engine.gguf import GgufHeader
from ryvion_node.engine.gguf_shape import read_header_and_shape
from ryvion_node.engine.memory import MemoryEstimate, context_of, estimate, shown

_SLOTS: int = ModelSection.model_fields["slots"].default


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Of one GGUF."""

    header: GgufHeader
    size_bytes: int
    context_tokens: int
    """Per job, unless the configuration says otherwise."""
    memory: MemoryEstimate | None
    """With the default slots and context; None: it holds no weights."""

    @property
    def kind(self) -> Literal["chat", "embedding", "other", "tokenizer"]:
        if not self.header.tensors:
            return "tokenizer"
        return "embedding" if self.header.pooling else "chat" if self.header.has_template else "other"

    @property
    def size_text(self) -> str:
        return shown(self.size_bytes)

    @property
    def memory_text(self) -> str:
        return "-" if self.memory is None else shown(self.memory.total_bytes)

    def as_json(self) -> dict[str, object]:
        return {
            "size_bytes": self.size_bytes,
            "memory_bytes": None if self.memory is None else self.memory.total_bytes,
            "file_kind": self.kind,
            "file_quantisation": self.header.quantisation,
        }

    def __str__(self) -> str:
        what = {"chat": "chat model", "embedding": "embedding model", "other": "model", "tokenizer": "only its header"}
        parts = [
            f"{what[self.kind]}, {self.header.architecture} {self.header.quantisation}",
            f"context {self.header.context_tokens}",
            self.size_text,
        ]
        if self.memory is not None:
            parts.append(f"takes {self.memory_text} of memory with {_SLOTS} slots of {self.context_tokens} tokens")
        return ", ".join(parts)


def read_facts(path: Path) -> FileFacts:
    """Read a file's header. Raises GgufError."""
    header, shape = read_header_and_shape(path)
    context_tokens = context_of(shape, None)
    memory = estimate(shape, slots=_SLOTS, context_tokens=context_tokens) if header.tensors else None
    return FileFacts(header, path.stat().st_size, context_tokens, memory)
