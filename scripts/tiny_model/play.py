"""Asks a GGUF file through llama.cpp, greedily: what evaluation and the tests of the documented prompts use.

Run as a program it reads questions as JSON lines, {"messages": [[role, content], ...], "prefix": "..."}, and prints
one answer per line as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import llama_cpp
import numpy as np

CONTEXT_TOKENS: Final = 1024
LONGEST_ANSWER_TOKENS: Final = 320
ANSWER_ROLE: Final = "assistant"


class Player:
    """One model and one context, for one question at a time."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._quiet = llama_cpp.llama_log_callback(_ignore)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path}")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = CONTEXT_TOKENS
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self._end = llama_cpp.llama_vocab_eos(self._vocabulary)

    def tokens(self, text: str, *, control: bool = False) -> list[int]:
        """Ids of a text; control tokens in it count as such only when asked to."""
        raw = text.encode()
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), buffer, len(buffer), False, control)
        return list(buffer[:count])

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> list[int]:
        """Ids of the whole prompt under the chat template, with the start of the answer if one is given."""
        ids = [llama_cpp.llama_vocab_bos(self._vocabulary)]
        for role, content in messages:
            ids += [*self.tokens(f"<|{role}|>", control=True), *self.tokens(content), self._end]
        return ids + self.tokens(f"<|{ANSWER_ROLE}|>", control=True) + self.tokens(prefix)

    def answer(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> tuple[str, int]:
        """The likeliest answer (without the prefix) and its tokens, the end token not counted."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        pending, written = self.prompt(messages, prefix), list[int]()
        room = min(LONGEST_ANSWER_TOKENS, CONTEXT_TOKENS - len(pending))
        while len(written) < room:
            token = self._next(pending)
            if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
                break
            written.append(token)
            pending = [token]
        return b"".join(map(self._piece, written)).decode(errors="replace"), len(written)

    def _next(self, ids: Sequence[int]) -> int:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(ids))) != 0:
            raise RuntimeError("llama.cpp could not decode the prompt")
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._size,)).argmax())

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(128)
        count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]


def _ignore(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """llama.cpp's own log is of no use here."""


def main() -> None:
    """Answer every question on stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    player = Player(parser.parse_args().model)
    for line in sys.stdin:
        question = json.loads(line)
        messages = [(str(role), str(content)) for role, content in question["messages"]]
        text, tokens = player.answer(messages, question.get("prefix", ""))
        print(json.dumps({"answer": text, "tokens": tokens, "ids": player.prompt(messages)}), flush=True)


if __name__ == "__main__":
    main()
