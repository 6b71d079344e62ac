"""From the Start message to a model that is tested, measured and ready to serve."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ryvion_node.engine import constants as limits
from ryvion_node.engine.files import FileState, file_digest, file_state
from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.gguf_shape import ModelShape, read_header_and_shape
from ryvion_node.engine.memory import address_space_bytes, context_of, estimate
from ryvion_node.engine.wire import Ready, Start
from ryvion_node.engine.worker.calibrate import Measured, measure
from ryvion_node.engine.worker.devices import has_gpu
from ryvion_node.engine.worker.embedder import Reading, measure_reading
from ryvion_node.engine.worker.llama import Context, LlamaError, Log, Model, check_layout
from ryvion_node.engine.worker.pipes import Pipes
from ryvion_node.engine.worker.processors import compute_threads
from ryvion_node.engine.worker.prompt import Prompts
from ryvion_node.engine.worker.template import TemplateRefused
from ryvion_node.walls.isolation import limit_memory


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model of which only the vocabulary was loaded when there is no context."""

    ready: Ready
    model: Model
    prompts: Prompts
    context: Context | None = None
    measured: Measured | None = None
    """Of a chat model."""
    reading: Reading | None = None
    """Of an embedding model."""


def files_of(start: Start) -> tuple[Path, ...]:
    """What has to be read for this model."""
    return tuple(Path(name) for name in (start.path, start.template) if name)


def load(start: Start, pipes: Pipes) -> Loaded:
    """Raises LlamaError, GgufError or TemplateRefused with a reason for the owner."""
    check_layout()
    path = Path(start.path)
    header, shape = read_header_and_shape(path)
    if shape.parts > 1:
        raise GgufError(
            f"{path}: one of {shape.parts} files of a model, and its SHA-256 says nothing about the others: "
            "join them with llama-gguf-split --merge"
        )
    # Drivers of GPUs map far more than they use.
    if not has_gpu():
        _limit_memory(shape, start)
    log = Log()
    if start.vocab_only:
        model = _open(path, start, pipes, log)
        log.deafen()
        return Loaded(Ready(b"", (), header.quantisation, "chat", 0, 0, 0, 0, ()), model, Prompts(model))
    if header.pooling > limits.MAX_POOLING:
        raise LlamaError(f"{path}: a model that ranks texts; chat and embedding models can be served")
    digest, state = _identify(path, start, pipes)
    model = _open(path, start, pipes, log)
    if header.pooling:
        return _embedding(path, start, pipes, log, model, _Identity(digest, state, header.quantisation))
    if not model.generates:
        raise LlamaError(f"{path}: no chat model (it does not continue text)")
    prompts = Prompts(model, _template(start))
    if prompts.problem:
        raise TemplateRefused(f"{start.template or path}: {prompts.problem}")
    context_tokens = _context_tokens(path, start, model)
    context = _context(path, start, model, context_tokens, log)
    try:
        measured = measure(context, start.slots, context_tokens, pipes.progress)
    except LlamaError as exc:
        raise LlamaError(f"{path}: {exc}") from exc
    log.deafen()
    ready = _ready(digest, state, header.quantisation, context_tokens, measured)
    return Loaded(ready, model, prompts, context, measured)


@dataclass(frozen=True, slots=True)
class _Identity:
    digest: bytes
    state: FileState
    quantisation: str


def _embedding(path: Path, start: Start, pipes: Pipes, log: Log, model: Model, identity: _Identity) -> Loaded:
    """As `load`, for a model that makes vectors of whole texts."""
    if model.dimensions > limits.MAX_DIMENSIONS:
        raise LlamaError(
            f"{path}: vectors of {model.dimensions} numbers; at most {limits.MAX_DIMENSIONS} can be served"
        )
    default = limits.DEFAULT_EMBEDDING_CONTEXT_TOKENS
    context_tokens = _context_tokens(path, start, model, default)
    try:
        context = Context(
            model,
            context_tokens=context_tokens,
            slots=limits.EMBED_STEP_TEXTS,
            # A text must fit one step; where texts are short, a step holds several.
            batch_tokens=max(context_tokens, limits.CPU_BATCH_TOKENS),
            threads=start.threads or compute_threads(),
            log=log,
            pooled=True,
        )
        reading = measure_reading(context, _step_tokens(start), pipes.progress)
    except LlamaError as exc:
        raise LlamaError(f"{path}: {exc}") from exc
    log.deafen()
    ready = Ready(
        digest=identity.digest,
        file_state=(identity.state.size_bytes, identity.state.mtime_ns, identity.state.inode),
        quantisation=identity.quantisation,
        kind="embedding",
        dimensions=model.dimensions,
        context_tokens=context_tokens,
        millitokens_per_s=0,
        prompt_millitokens_per_s=int(1000 / reading.seconds_per_token),
        step_us=(),
    )
    return Loaded(ready, model, Prompts(model), context, reading=reading)


def _limit_memory(shape: ModelShape, start: Start) -> None:
    taken = estimate(shape, slots=start.slots, context_tokens=context_of(shape, start.context_tokens or None))
    # One set of threads computes; the grammar engine may start another.
    threads = (start.threads or compute_threads()) + (os.cpu_count() or 1)
    limit_memory(address_space_bytes(taken, shape, threads))


def _template(start: Start) -> str | None:
    """The one that the owner put in the place of the model's own."""
    if not start.template:
        return None
    try:
        with Path(start.template).open("rb") as file:
            data = file.read(limits.MAX_TEMPLATE_CHARS * 4 + 1)
        text = data.decode()
    except OSError as exc:
        raise TemplateRefused(f"{start.template}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise TemplateRefused(
            f"{start.template}: a template is UTF-8 text, at most {limits.MAX_TEMPLATE_CHARS} characters"
        ) from exc
    if start.template_digest not in (b"", hashlib.sha256(data).digest()):
        raise TemplateRefused(
            f"{start.template}: changed since the node started; restart the node to use it as it is now"
        )
    return text


def _identify(path: Path, start: Start, pipes: Pipes) -> tuple[bytes, FileState]:
    pipes.progress("hashing")
    if start.known_digest:
        digest, state = start.known_digest, file_state(path)
    else:
        digest, state = file_digest(path, lambda _share: pipes.progress("hashing"))
    if start.expected_digest not in (b"", digest):
        raise GgufError(
            f"{path}: its SHA-256 is {digest.hex()}, expected {start.expected_digest.hex()}: "
            "fetch the file again, correct the digest in the configuration, or restart the node if you replaced the file"
        )
    return digest, state


def _open(path: Path, start: Start, pipes: Pipes, log: Log) -> Model:
    pipes.progress("loading")
    try:
        return Model(
            path,
            vocab_only=start.vocab_only,
            gpu_layers=start.gpu_layers,
            on_progress=lambda _share: pipes.progress("loading"),
            log=log,
        )
    except LlamaError as exc:
        raise LlamaError(f"{path}: llama.cpp cannot load it ({exc}): fetch the file again") from exc


def _context_tokens(path: Path, start: Start, model: Model, default: int = limits.DEFAULT_CONTEXT_TOKENS) -> int:
    trained = model.trained_context_tokens
    wanted = start.context_tokens or min(trained, default)
    if not 2 <= wanted <= trained:
        raise LlamaError(
            f"{path}: a context of {wanted} tokens is configured, the model was trained with {trained}: "
            f"set context_tokens to 2 .. {trained}, or leave it away"
        )
    return wanted


def _context(path: Path, start: Start, model: Model, context_tokens: int, log: Log) -> Context:
    most = _step_tokens(start)
    try:
        return Context(
            model,
            context_tokens=context_tokens,
            slots=start.slots,
            batch_tokens=min(most, context_tokens * start.slots),
            threads=start.threads or compute_threads(),
            log=log,
        )
    except LlamaError as exc:
        raise LlamaError(
            f"{path}: no room for {start.slots} slots of {context_tokens} tokens ({exc}): configure fewer or smaller ones"
        ) from exc


def _step_tokens(start: Start) -> int:
    """Rows of a step at most, unless one text needs more."""
    return limits.GPU_BATCH_TOKENS if start.gpu_layers and has_gpu() else limits.CPU_BATCH_TOKENS


def _ready(digest: bytes, state: FileState, quantisation: str, context_tokens: int, measured: Measured) -> Ready:
    times = measured.step_s
    return Ready(
        digest=digest,
        file_state=(state.size_bytes, state.mtime_ns, state.inode),
        quantisation=quantisation,
        kind="chat",
        dimensions=0,
        context_tokens=context_tokens,
        millitokens_per_s=int(1000 / times[1]),
        prompt_millitokens_per_s=int(1000 / measured.prompt_s_per_token),
        step_us=tuple(int(times[size] * 1e6) if size in times else 0 for size in range(1, max(times) + 1)),
    )
