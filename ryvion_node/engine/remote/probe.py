"""What a server is, has, can do and how fast it is: asked for, tried out and measured, never assumed of a silent one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

import trio

from ryvion_node.engine.interface import (
    EngineError,
    Feature,
    GenerationRequest,
    OutputFormat,
    Piece,
    Sampling,
    Tool,
    ToolUse,
    Turn,
)
from ryvion_node.engine.remote import constants as limits
from ryvion_node.engine.remote.answer import Answer
from ryvion_node.engine.remote.connections import ServerLost
from ryvion_node.engine.remote.dialect import FEATURES, STATABLE, completion_body
from ryvion_node.engine.remote.faults import refusal
from ryvion_node.engine.remote.http import HttpServer, ServerRefused
from ryvion_node.engine.remote.job import Backend
from ryvion_node.engine.remote.spec import Flavour, RemoteSpec
from ryvion_node.engine.remote.sse import Garbled
from ryvion_node.engine.remote.stream import completion

_OWNERS: Final[dict[str, Flavour]] = {
    "llamacpp": "llama-server",
    "vllm": "vllm",
    "sglang": "sglang",
    "me": "llama-cpp-python",
}
"""What `owned_by` says in a server's list of models -> its dialect."""
_REGEX_SINCE: Final = (0, 11)
"""First vLLM that takes `structured_outputs`; older ones ignore it in silence."""


class Unusable(Exception):
    """The server answers, but this model cannot be sold from it; the message tells its owner what to mend."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as its server lists it."""

    served_as: str
    owned_by: str
    context_tokens: int | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one job alone, in 1/1000 token per second."""

    millitokens_per_s: int
    prompt_millitokens_per_s: int
    reports_usage: bool


async def find_model(server: HttpServer, spec: RemoteSpec) -> Listed:
    """Is the model there? Raises Unusable, ServerLost or ServerSlow."""
    status, told = await server.ask("GET", "/v1/models")
    if status in (401, 403):
        raise Unusable(f"its server refuses the key: check key_file or key_env (HTTP {status})")
    if status >= 500:
        raise ServerLost(f"its server answers HTTP {status}")
    entries = told.get("data") if isinstance(told, dict) else None
    if status != 200 or not isinstance(entries, list):
        raise Unusable(f"no list of models at {server.address}/v1/models (HTTP {status}): check the URL")
    known = {entry["id"]: entry for entry in entries[: limits.MAX_MODELS_LISTED] if _has_id(entry)}
    wanted = spec.served_as or spec.name
    if wanted not in known and (spec.served_as or len(known) != 1):
        shown = ", ".join(sorted(known)[:8]) or "none"
        raise Unusable(f"its server has no model {wanted!r}; set served_as to one of: {shown}")
    served_as = wanted if wanted in known else next(iter(known))
    entry = known[served_as]
    return Listed(served_as, str(entry.get("owned_by", "")), _context_of(entry))


async def find_flavour(server: HttpServer, spec: RemoteSpec, listed: Listed) -> Flavour:
    """Whose dialect the server speaks. Raises ServerLost or ServerSlow."""
    if spec.flavour != "auto":
        return spec.flavour
    known = _OWNERS.get(listed.owned_by)
    if known is not None:
        return known
    status, told = await server.ask("GET", "/api/version")
    return "ollama" if status == 200 and isinstance(told, dict) and "version" in told else "openai"


async def find_context(server: HttpServer, spec: RemoteSpec, listed: Listed, flavour: Flavour) -> int:
    """Tokens that a job may have, prompt and answer. Raises Unusable, ServerLost or ServerSlow."""
    told = listed.context_tokens
    if told is None and flavour == "llama-server":
        _, props = await server.ask("GET", "/props")
        settings = props.get("default_generation_settings") if isinstance(props, dict) else None
        told = _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None
    if told is None and spec.context_tokens is None:
        raise Unusable("its server does not tell how long a context may be: set context_tokens")
    return min(size for size in (told, spec.context_tokens) if size is not None)


async def find_features(backend: Backend, spec: RemoteSpec) -> tuple[Feature, ...]:
    """What the server's kind can do, less what this one refuses. Raises what `completion` does."""
    claimed = set(FEATURES[backend.flavour] if spec.features is None else spec.features) & STATABLE[backend.flavour]
    if backend.flavour == "vllm" and spec.features is None and await _version(backend.server) < _REGEX_SINCE:
        claimed.discard("regex")
    if backend.flavour == "llama-server" and await _ignores_tools(backend.server):
        claimed.discard("tools")
    for feature in sorted(claimed & _TRIALS.keys()):
        for trial in _TRIALS[feature]:
            if feature in claimed and not await _passes(backend, feature, trial):
                claimed.discard(feature)
    return tuple(sorted(claimed))


async def repeats_prefix(backend: Backend) -> bool:
    """Does it send the prefix that it continues back in front of the answer? Raises as `find_features` does."""
    ran = await _run(backend, _request("Hello!", 1, _PREFIX))
    return "".join(ran.answer.texts()).startswith(_PREFIX)


async def measure(backend: Backend) -> Speed:
    """Speeds of one job alone, by a long prompt and by a short answer. Raises what `completion` does, and Unusable."""
    words = min(limits.PROBE_PROMPT_WORDS, backend.context_tokens // 8)
    long = _request("Count: " + " ".join(str(number) for number in range(words)), 1)
    read = await _run(backend, long)
    told = read.answer.usage.prompt_tokens if read.answer.usage is not None else 0
    if backend.meter is not None:
        told = await backend.meter.prompt(long.turns, long.tools)
    answered = await _run(
        backend, _request("Count from one to fifty.", max(1, min(limits.PROBE_TOKENS, backend.context_tokens // 4)))
    )
    usage = answered.answer.usage
    tokens = answered.answer.chunks if usage is None else usage.completion_tokens
    # From the request on, with its prompt: chunks that came in one go would make the decoding alone look faster.
    return Speed(_speed(max(tokens, 1), answered.last_s), _speed(max(told, words), read.first_s), usage is not None)


@dataclass(frozen=True, slots=True)
class _Ran:
    """A trial and its times since it was sent, in seconds."""

    answer: Answer
    first_s: float
    last_s: float
    chances: int


async def _run(backend: Backend, request: GenerationRequest) -> _Ran:
    body = completion_body(backend.flavour, backend.served_as, backend.context_tokens, request)
    answer = Answer(request.max_tokens, request.logprobs)
    begun_at = trio.current_time()
    first_s = last_s = 0.0
    chances = 0
    try:
        async with completion(backend.server, body, request.max_tokens, backend.timing) as events:
            while not answer.done and (data := await events.next(has_begun=answer.chunks > 0)) is not None:
                piece = answer.add(data)
                if isinstance(piece, Piece):
                    last_s = trio.current_time() - begun_at
                    first_s = first_s or last_s
                    chances += len(piece.logprobs)
        answer.end()
    except Garbled as exc:
        raise Unusable(f"tried out, {exc}") from exc
    over_s = trio.current_time() - begun_at
    return _Ran(answer, first_s or over_s, last_s or over_s, chances)


def _request(said: str, max_tokens: int, prefix: str = "") -> GenerationRequest:
    turns = (Turn("user", said), *([Turn("assistant", prefix)] if prefix else []))
    return GenerationRequest("", turns, max_tokens, Sampling(temperature=0.0))


_HELLO: Final = _request("Hello!", 1)
_PREFIX: Final = "Xyzzy 7316,"
"""Nothing that a model would say by itself."""
_OBJECT: Final = (
    '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'
)
_TOOL: Final = (Tool("look", "Looks something up.", _OBJECT),)
_TRIALS: Final[dict[Feature, tuple[GenerationRequest, ...]]] = {
    "json_object": (replace(_request("Answer in JSON.", 1), output=OutputFormat("json_object")),),
    "json_schema": (replace(_HELLO, output=OutputFormat("json_schema", _OBJECT)),),
    "logit_bias": (replace(_HELLO, sampling=Sampling(0.0, logit_bias=((1, -1.0),))),),
    "logprobs": (replace(_HELLO, logprobs=1),),
    "prefix": (_request("Hello!", 1, _PREFIX),),
    "regex": (replace(_HELLO, output=OutputFormat("regex", "[a-z]{1,8}")),),
    "tools": (
        replace(_HELLO, tools=ToolUse(_TOOL)),
        replace(_request("Look up whether all is well.", limits.TRIAL_CALL_TOKENS), tools=ToolUse(_TOOL, "required")),
    ),
}
"""What may depend on the model, or on how its server was started: a refusal takes the feature off the offer."""


async def _passes(backend: Backend, feature: Feature, trial: GenerationRequest) -> bool:
    try:
        ran = await _run(backend, trial)
    except Unusable:
        return False
    except EngineError:  # its kind of server has no such choice
        return True
    except ServerRefused as exc:
        if refusal(backend.name, exc.status, exc.body).code in ("busy", "model_broken"):
            raise
        return False
    if trial.tools.choice == "required" and backend.flavour != "llama-server":  # which lets text come before the call
        is_still_thinking = ran.answer.thoughts() != "" and not ran.answer.texts()
        return ran.answer.has_calls() or is_still_thinking
    return feature != "logprobs" or ran.chances > 0


async def _ignores_tools(server: HttpServer) -> bool:
    """Does the model's template at a llama-server know no tools? It takes them all the same, and leaves them out."""
    _, props = await server.ask("GET", "/props")
    able = props.get("chat_template_caps") if isinstance(props, dict) else None
    return isinstance(able, dict) and able.get("supports_tools") is False


async def _version(server: HttpServer) -> tuple[int, ...]:
    _, told = await server.ask("GET", "/version")
    version = told.get("version") if isinstance(told, dict) else None
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _context_of(entry: dict[str, object]) -> int | None:
    told = _positive(entry.get("max_model_len"))
    meta = entry.get("meta")
    return told if told is not None or not isinstance(meta, dict) else _positive(meta.get("n_ctx"))


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 < value < 2**31 else None


def _has_id(entry: object) -> bool:
    name = entry.get("id") if isinstance(entry, dict) else None
    return isinstance(name, str) and 0 < len(name) <= 512 and name.isprintable()


def _speed(tokens: int, seconds: float) -> int:
    return max(1, min(round(tokens * 1000 / max(seconds, 1e-6)), limits.MAX_SPEED_MILLITOKENS))
