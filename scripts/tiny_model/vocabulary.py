"""The vocabulary of the models and how a GGUF file holds it, chat template included."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gguf import GGUFReader, GGUFWriter, TokenType

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
CONTROL_TOKENS = (BOS, END, "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", PAD)
"""Ids 0 to 6. Typed CONTROL, so message text that is tokenised without parse_special cannot forge one."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + (message['role'] if message['role'] in ('user', 'assistant', 'tool') else 'system') + '|>'"
    " + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Contents go in untouched; any role that the models do not know counts as system. BOS comes from add_bos_token."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE: token texts in GPT-2's byte alphabet in id order, merges in priority order."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def id_of(self, token: str) -> int:
        """The id of one token's text."""
        return self.tokens.index(token)


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Keep it beside the checkpoints: weights are worth nothing with other tokens."""
    path.write_text(json.dumps(asdict(vocabulary)), encoding="utf-8")


def load_vocabulary(path: Path) -> Vocabulary:
    """Read it back."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Vocabulary(tuple(stored["tokens"]), tuple((left, right) for left, right in stored["merges"]))


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, *, padded_to: int = 0, chats: bool = True) -> None:
    """Add the tokenizer, and for a model that chats its template, to a GGUF; ids past the vocabulary become unused tokens."""
    tokens = [*vocabulary.tokens, *(f"<unused{i}>" for i in range(len(vocabulary.tokens), padded_to))]
    kinds = [TokenType.CONTROL if token in CONTROL_TOKENS else TokenType.NORMAL for token in vocabulary.tokens]
    kinds += [TokenType.UNUSED] * (len(tokens) - len(kinds))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.id_of(BOS))
    writer.add_eos_token_id(vocabulary.id_of(END))
    writer.add_eot_token_id(vocabulary.id_of(END))
    writer.add_pad_token_id(vocabulary.id_of(PAD))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if chats:
        writer.add_chat_template(CHAT_TEMPLATE)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the tokens and merges back out of one of our GGUF files."""
    reader = GGUFReader(path)
    tokens = [str(token) for token in _strings(reader, "tokenizer.ggml.tokens")]
    pairs = [str(merge).split(" ") for merge in _strings(reader, "tokenizer.ggml.merges")]
    return Vocabulary(tuple(tokens), tuple((left, right) for left, right in pairs))


def _strings(reader: GGUFReader, key: str) -> list[str]:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"{key} is missing from the file")
    return list(field.contents())
