"""What a server's refusals mean, as engine errors. The messages say nothing of the server's own text: it may hold parts
of the prompt, paths or addresses, and a job's error travels to the requester."""

from __future__ import annotations

import re
from typing import Final

from ryvion_node.engine.interface import EngineError
from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
from ryvion_node.engine.remote.http import ServerRefused
from ryvion_node.engine.remote.sse import Garbled
from ryvion_protocol.schema import as_note

_TOO_LONG: Final = re.compile(
    r"context[ _-](length|size|window)|max(imum)?[ _]model[ _]len|input length|max_new_tokens", re.IGNORECASE
)
"""llama-server: exceeds the available context size. vLLM: maximum context length, maximum model length. SGLang: longer
than the model's context length. Ollama: input length exceeds the context length. llama-cpp-python: exceed context window."""
_TOO_LONG_CODES: Final = ("context_length_exceeded", "exceed_context_size_error")
_GRAMMAR: Final = re.compile(r"grammar|schema|regex|guided|structured|response_format", re.IGNORECASE)
_TEMPLATE: Final = re.compile(r"template|jinja|\brole|alternate", re.IGNORECASE)
_BUSY: Final = (408, 425, 429, 503, 529)


def refusal(model: str, status: int, body: object) -> EngineError:
    """A reply other than 200, or an error in the stream."""
    code, message = _told(body)
    if status in _BUSY:
        return EngineError("busy", f"the engine behind {model} is busy (HTTP {status}); try again shortly")
    if status == 413 or code in _TOO_LONG_CODES or (status in (400, 422, 500) and _TOO_LONG.search(message)):
        return EngineError("context_overflow", f"the prompt does not fit into the context of {model}")
    if status in (401, 403):
        return EngineError("model_broken", f"the engine behind {model} refuses its owner's key")
    if status in (404, 405, 410):
        return EngineError("model_broken", f"the engine behind {model} does not know it (any more)")
    if status == 501:
        return EngineError("unsupported", f"the engine behind {model} cannot do what was asked")
    if status in (400, 422) and _GRAMMAR.search(message):
        return EngineError("grammar_invalid", f"the engine behind {model} refuses the schema or grammar")
    if status in (400, 422) and _TEMPLATE.search(message):
        return EngineError("template_failed", f"the chat template behind {model} refuses these messages")
    if 400 <= status < 500:
        return EngineError("unsupported", f"the engine behind {model} refuses the request (HTTP {status})")
    if 300 <= status < 400:
        return EngineError("worker_crashed", f"the engine behind {model} redirects, which is not followed")
    return EngineError("worker_crashed", f"the engine behind {model} failed (HTTP {status})")


def failure(model: str, exc: ServerLost | ServerSlow | Garbled | ServerRefused) -> EngineError:
    """What a job is told when its server is lost, silent, or talks nonsense."""
    match exc:
        case ServerRefused():
            return refusal(model, exc.status, exc.body)
        case ServerSlow():
            return EngineError("worker_stalled", f"the engine behind {model} is silent")
        case Garbled():
            return EngineError("worker_crashed", f"the engine behind {model} misbehaves: {exc}")
        case _:
            return EngineError("worker_crashed", f"the engine behind {model} is gone")


def told_by(exc: ServerRefused) -> str:
    """What the server itself said, for its owner: never of a requester's job."""
    code, message = _told(exc.body)
    return f"HTTP {exc.status}: {as_note(message or code) or 'without a word'}"


def _told(body: object) -> tuple[str, str]:
    """The code or type, and the message, in the shapes that servers use."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    known = next((code for code in _TOO_LONG_CODES if code in (error.get("code"), error.get("type"))), "")
    message = error.get("message") or error.get("detail")
    return known, message[:4000] if isinstance(message, str) else ""
