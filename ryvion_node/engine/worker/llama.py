"""llama.cpp as this worker needs it: a model, its vocabulary, and a context with N sequences.

Thin and typed; everything untyped of llama_cpp's ctypes layer stays in this file. A context belongs to one thread;
a vocabulary may be used by any.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import llama_cpp.llama_cpp as bindings
import numpy as np
import numpy.typing as npt

_lib: Final[Any] = bindings
_INT32_P: Final = ctypes.POINTER(ctypes.c_int32)
_INT8_P: Final = ctypes.POINTER(ctypes.c_int8)
_LOG_ERROR: Final = 4
_SPM: Final = 1

# As llama_cpp declares it, but for the plain address: making a pointer object costs more than sampling.
_logits_at: Final[Any] = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", bindings._lib)  # noqa: SLF001 - the library itself is nowhere public
)

Logits = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]


class LlamaError(Exception):
    """llama.cpp refused; the message carries its own words."""


class Log:
    """llama.cpp's log: silent, but the errors of loading are kept for the reason shown to the owner."""

    _installed: ClassVar[Log | None] = None
    """llama.cpp keeps a pointer into the newest one, so it must live on."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._listening = True
        self._callback = _lib.llama_log_callback(self._heard)
        _lib.llama_log_set(self._callback, ctypes.c_void_p(0))
        Log._installed = self

    def _heard(self, level: int, text: bytes, _user_data: object) -> None:
        if self._listening and level == _LOG_ERROR and len(self._errors) < 8:
            self._errors.append(text.decode("utf-8", "replace").strip())

    def reason(self) -> str:
        """The first error heard, without the name of the function that reports it."""
        first = next(iter(self._errors), "llama.cpp gave no reason")
        return first.split(": ", 1)[-1][:300]

    def deafen(self) -> None:
        """From now on keep nothing: later messages could quote prompts."""
        self._listening = False
        self._errors.clear()


def check_layout() -> None:
    """The default parameters read through our structs must make sense, else the bindings do not fit the library."""
    context = _lib.llama_context_default_params()
    if (context.n_ctx, context.n_batch, context.n_ubatch) != (512, 2048, 512):
        raise LlamaError("llama-cpp-python and its llama.cpp library do not fit together: install the pinned version")


class Model:
    """A loaded GGUF; vocab_only loads no weights."""

    def __init__(
        self, path: Path, *, vocab_only: bool, gpu_layers: int, on_progress: Callable[[float], None], log: Log
    ) -> None:
        _lib.llama_backend_init()
        params = _lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = gpu_layers

        def progress(share: float, _data: object) -> bool:
            on_progress(share)
            return True

        self._progress = _lib.llama_progress_callback(progress)
        params.progress_callback = self._progress
        self.handle = _lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise LlamaError(log.reason())
        self.vocabulary = Vocabulary(_lib.llama_model_get_vocab(self.handle))
        self.trained_context_tokens: int = _lib.llama_model_n_ctx_train(self.handle)

    def text(self, key: str) -> str:
        """A metadata value as text; empty when absent."""
        buffer = ctypes.create_string_buffer(256)
        length = _lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    @property
    def chat_template(self) -> str | None:
        template = _lib.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    @property
    def dimensions(self) -> int:
        """Numbers of a vector that comes out."""
        return int(_lib.llama_model_n_embd_out(self.handle))

    @property
    def generates(self) -> bool:
        """Has a decoder that continues text."""
        return bool(_lib.llama_model_has_decoder(self.handle)) and not _lib.llama_model_has_encoder(self.handle)


class Vocabulary:
    """Tokens of a model. Thread-safe."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.size: int = _lib.llama_vocab_n_tokens(handle)
        self.bos: int = _lib.llama_vocab_bos(handle)
        self.adds_bos: bool = bool(_lib.llama_vocab_get_add_bos(handle)) and self.bos >= 0
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        # SentencePiece puts a space before a text; inside a prompt there must be none.
        self._prefixes_space = _lib.llama_vocab_type(handle) == _SPM and self.piece(self.tokenise("x")[0])[:1] == b" "
        self._newline = self.tokenise("\n") if self._prefixes_space else []

    def tokenise(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text, no BOS; with `special` control tokens written in it are recognised."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        buffer = (ctypes.c_int32 * size)()
        count = _lib.llama_tokenize(self._handle, data, len(data), buffer, size, False, special)
        if count < 0:
            raise LlamaError("text cannot be tokenised")
        return buffer[:count]

    def tokenise_alone(self, text: str) -> list[int]:
        """Tokens of a text that is the whole input, with those that the model wants around it (BOS, CLS, SEP)."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        buffer = (ctypes.c_int32 * size)()
        count = _lib.llama_tokenize(self._handle, data, len(data), buffer, size, True, False)
        if count < 0:
            raise LlamaError("text cannot be tokenised")
        return buffer[:count]

    def tokenise_inside(self, text: str, *, special: bool = False) -> list[int]:
        """As `tokenise`, for a text that follows another one in a prompt."""
        if self._prefixes_space:
            # After a newline, which is a byte token there, no space is put; then the newline is taken off again.
            tokens = self.tokenise("\n" + text, special=special)
            if tokens[: len(self._newline)] == self._newline:
                return tokens[len(self._newline) :]
        return self.tokenise(text, special=special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token in an answer; empty for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def pieces(self) -> list[bytes]:
        """Those of all tokens in order; much faster than one by one."""
        buffer = ctypes.create_string_buffer(64)
        lengths = (_lib.llama_token_to_piece(self._handle, token, buffer, 64, 0, False) for token in range(self.size))
        return [
            buffer.raw[:length] if length >= 0 else self._read_piece(token, special=False)
            for token, length in enumerate(lengths)
        ]

    def name(self, token: int) -> str:
        """A token as templates write it, e.g. <|end|>; empty when the model has no such token."""
        return self._read_piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def eos(self) -> int:
        return int(_lib.llama_vocab_eos(self._handle))

    def ends(self, token: int) -> bool:
        """Does this token end an answer?"""
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = bool(_lib.llama_vocab_is_eog(self._handle, token))
        return known

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = _lib.llama_token_to_piece(self._handle, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length


class Context:
    """The key-value cache and one batch. Rows are put in, `decode` runs them, logits come out by row."""

    def __init__(
        self,
        model: Model,
        *,
        context_tokens: int,
        slots: int,
        batch_tokens: int,
        threads: int,
        log: Log,
        pooled: bool = False,
    ) -> None:
        """With `pooled` for vectors of whole texts: `encode` and `vector` instead of `decode` and `logits`."""
        params = _lib.llama_context_default_params()
        # Every text is read in one step and then forgotten: there need be no more cells than a step has rows.
        params.n_ctx = batch_tokens if pooled else context_tokens * slots
        params.embeddings = pooled
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = slots
        params.n_threads = params.n_threads_batch = threads
        # Each sequence has its own cells: attention looks at those only, not at all sequences' (a third of a step with
        # 16 jobs of 400 tokens). The price: one pass over the weights serves sequences of consecutive numbers only.
        params.kv_unified = pooled
        params.no_perf = True
        self._handle = _lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise LlamaError(log.reason())
        self._memory = _lib.llama_get_memory(self._handle)
        self._window: int = _lib.llama_model_n_swa(model.handle)
        self.can_cut = not (_lib.llama_model_is_recurrent(model.handle) or _lib.llama_model_is_hybrid(model.handle))
        """Whether the end of a sequence can be taken off again; a state that runs along cannot be turned back."""
        self._row_type: Any = ctypes.c_float * (model.dimensions if pooled else model.vocabulary.size)
        self.batch_tokens = batch_tokens
        self._tokens = np.zeros(batch_tokens, np.int32)
        self._positions = np.zeros(batch_tokens, np.int32)
        self._sequences = np.zeros(batch_tokens, np.int32)
        self._sequence_counts = np.ones(batch_tokens, np.int32)
        self._wanted = np.zeros(batch_tokens, np.int8)
        self._rows = 0
        # One sequence per row: row i points at element i of the sequence array.
        self._pointers = (self._sequences.ctypes.data + 4 * np.arange(batch_tokens)).astype(np.uintp)
        self._batch = _lib.llama_batch(
            0,
            self._tokens.ctypes.data_as(_INT32_P),
            None,
            self._positions.ctypes.data_as(_INT32_P),
            self._sequence_counts.ctypes.data_as(_INT32_P),
            self._pointers.ctypes.data_as(ctypes.POINTER(_INT32_P)),
            self._wanted.ctypes.data_as(_INT8_P),
        )

    @property
    def room(self) -> int:
        """Rows that still fit this step."""
        return self.batch_tokens - self._rows

    def put(self, sequence: int, position: int, tokens: Sequence[int], *, want_logits: int) -> int:
        """Add tokens of one sequence; returns the row of the last one. So many of the last rows give logits.

        Sequences must come in rising order: those of consecutive numbers share a pass over the weights.
        """
        first, end = self._rows, self._rows + len(tokens)
        assert end <= self.batch_tokens
        self._tokens[first:end] = tokens
        self._positions[first:end] = np.arange(position, position + len(tokens))
        self._sequences[first:end] = sequence
        self._wanted[first:end] = 0
        self._wanted[end - want_logits : end] = 1
        self._rows = end
        return end - 1

    def decode(self) -> None:
        """Run the rows put in to the end. Raises LlamaError, after which the context must not be used again."""
        self._batch.n_tokens, self._rows = self._rows, 0
        code = _lib.llama_decode(self._handle, self._batch)
        if code != 0:
            raise LlamaError(f"llama_decode returned {code}")
        # GPUs compute behind our back, and where no logits are read nothing else waits: steps would seem to take no time.
        _lib.llama_synchronize(self._handle)

    def encode(self) -> None:
        """Run the whole texts put in, each a sequence. Raises LlamaError."""
        self._batch.n_tokens, self._rows = self._rows, 0
        if self._memory:
            _lib.llama_memory_clear(self._memory, False)
            code = _lib.llama_decode(self._handle, self._batch)
        else:
            code = _lib.llama_encode(self._handle, self._batch)
        if code != 0:
            raise LlamaError(f"llama.cpp could not read the texts ({code})")

    def vector(self, sequence: int) -> Vector:
        """The pooled output of a sequence: a view, valid until the next `encode`."""
        found = _lib.llama_get_embeddings_seq(self._handle, sequence)
        if not found:
            raise LlamaError(f"no vector of sequence {sequence}")
        return np.frombuffer(self._row_type.from_address(ctypes.addressof(found.contents)), np.float32)

    def logits(self, row: int) -> Logits:
        """A view, valid until the next decode."""
        address = _logits_at(self._handle, row)
        if not address:
            raise LlamaError(f"no logits in row {row}")
        return np.frombuffer(self._row_type.from_address(address), np.float32)

    def forget(self, sequence: int) -> None:
        """Empty one sequence's cache."""
        _lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def cut(self, sequence: int, tokens: int) -> int:
        """Keep the first tokens of a sequence; returns how many: none of them where that cannot be done."""
        if tokens and self.can_cut and _lib.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            first: int = _lib.llama_memory_seq_pos_min(self._memory, sequence)
            # With a sliding window, cells that the next token must see may be gone.
            if 0 <= first <= max(0, tokens - self._window):
                return tokens
        self.forget(sequence)
        return 0
