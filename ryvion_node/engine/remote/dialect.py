"""What each kind of server can be asked for, and how it wants to be asked (pure).

Every rule of sampling is always written out where the server has a word for it: several take defaults from the model's
own files, such as a repetition penalty, when a request is silent.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from ryvion_node.engine.interface import EngineError, Feature, GenerationRequest, Sampling, ToolUse, Turn
from ryvion_node.engine.jobs import plain_text
from ryvion_node.engine.remote.schemas import checked_expression, checked_schema
from ryvion_node.engine.remote.spec import Flavour

_VLLM: Final[tuple[Feature, ...]] = (
    "top_k",
    "min_p",
    "penalties",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "json_object",
    "json_schema",
    "regex",
    "tools",
    "prefix",
)
"""SGLang can do the same."""
FEATURES: Final[Mapping[Flavour, tuple[Feature, ...]]] = {
    "openai": (),
    "llama-server": (
        "top_k",
        "min_p",
        "penalties",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "json_object",
        "json_schema",
        "tools",
        "prefix",
    ),
    "llama-cpp-python": (
        "top_k",
        "min_p",
        "penalties",
        "repetition_penalty",
        "logit_bias",
        "json_object",
        "json_schema",
    ),
    "vllm": _VLLM,
    "sglang": _VLLM,
    "ollama": ("penalties", "json_object", "json_schema", "tools"),
}
"""What a server of each kind is known to do. Of an unknown one nothing is, until its owner says so. None draws tokens by
our sampler, so none is `seeded`; `counted` comes with a tokenizer, not with the server."""

_COMMON: Final[frozenset[Feature]] = frozenset(
    ("penalties", "logit_bias", "logprobs", "json_object", "json_schema", "tools")
)
"""What the OpenAI API itself has words for."""
_WIDESPREAD: Final[frozenset[Feature]] = frozenset(("top_k", "min_p", "repetition_penalty"))
STATABLE: Final[Mapping[Flavour, frozenset[Feature]]] = {
    flavour: _COMMON.union(known, _WIDESPREAD if flavour == "openai" else ()) for flavour, known in FEATURES.items()
}
"""What an owner may state for each kind: what there are words for in its dialect."""

_SALT: Final = secrets.token_bytes(16)
_SEEDS: Final[Mapping[Flavour, int]] = {"vllm": 2**63, "llama-server": 2**32 - 1, "llama-cpp-python": 2**32 - 1}
"""Seeds are taken modulo this: 2^31 where nothing else is known to fit."""


def needed(request: GenerationRequest) -> tuple[Feature, ...]:
    """What a job needs beyond temperature, top_p, seed and stop."""
    sampling = request.sampling
    wanted: list[tuple[bool, Feature]] = [
        (sampling.top_k > 0, "top_k"),
        (sampling.min_p > 0, "min_p"),
        (sampling.presence_penalty != 0 or sampling.frequency_penalty != 0, "penalties"),
        (sampling.repetition_penalty != 1, "repetition_penalty"),
        (bool(sampling.logit_bias), "logit_bias"),
        (request.logprobs is not None, "logprobs"),
        (bool(request.tools.tools) or any(turn.tool_calls or turn.tool_call_id for turn in request.turns), "tools"),
        (continues(request.turns), "prefix"),
    ]
    if request.output is not None:
        wanted.append((True, request.output.kind))
    return tuple(feature for is_needed, feature in wanted if is_needed)


def continues(turns: Sequence[Turn]) -> bool:
    """Is the last turn an answer to be continued?"""
    return bool(turns) and turns[-1].role == "assistant"


def completion_body(
    flavour: Flavour, served_as: str, context_tokens: int, request: GenerationRequest
) -> dict[str, object]:
    """The body of POST /v1/chat/completions. Raises EngineError; the request needs nothing that the server lacks."""
    body: dict[str, object] = {
        **prompt_body(flavour, served_as, request.turns, request.tools),
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(flavour, request.sampling, context_tokens),
        **_choice(flavour, request.tools),
        **_output(flavour, request),
        **_privacy(flavour, request.owner),
    }
    if request.stop:
        body["stop"] = [plain_text(stop) for stop in request.stop]
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


def prompt_body(flavour: Flavour, served_as: str, turns: Sequence[Turn], tools: ToolUse) -> dict[str, object]:
    """What decides the prompt: model, messages, tools, and whether the last message goes on. Raises EngineError."""
    body: dict[str, object] = {"model": served_as, "messages": [_message(turn) for turn in turns]}
    if tools.tools and not (flavour == "ollama" and tools.choice == "none"):
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": plain_text(tool.description),
                    "parameters": checked_schema(tool.parameters) if tool.parameters else {"type": "object"},
                },
            }
            for tool in tools.tools
        ]
    if continues(turns):
        if flavour == "vllm":
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        elif flavour == "sglang":
            body["continue_final_message"] = True
    return body


def _message(turn: Turn) -> dict[str, object]:
    message: dict[str, object] = {"role": turn.role, "content": plain_text(turn.content)}
    if turn.name:
        message["name"] = plain_text(turn.name)
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": plain_text(call.arguments)},
            }
            for call in turn.tool_calls
        ]
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _sampling(flavour: Flavour, sampling: Sampling, context_tokens: int) -> dict[str, object]:
    rules: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed % _SEEDS.get(flavour, 2**31),
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    match flavour:
        case "llama-server":
            rules |= {
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
                "repeat_last_n": context_tokens,
                "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            }
        case "llama-cpp-python":
            rules |= {
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
            }
        case "vllm" | "sglang":
            rules |= {
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
            }
        case "openai":
            rules |= {"top_k": sampling.top_k} if sampling.top_k else {}
            rules |= {"min_p": sampling.min_p} if sampling.min_p else {}
            penalty = sampling.repetition_penalty
            rules |= {"repetition_penalty": penalty} if penalty != 1 else {}
        case "ollama":
            pass
    if sampling.logit_bias:
        rules["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return rules


def _choice(flavour: Flavour, tools: ToolUse) -> dict[str, object]:
    if not tools.tools:
        return {}
    if flavour == "ollama":
        if tools.choice in ("required", "named"):
            raise EngineError("unsupported", "Ollama leaves it to the model whether a tool is called")
        return {}
    named = {"type": "function", "function": {"name": tools.name}}
    return {
        "tool_choice": named if tools.choice == "named" else tools.choice,
        "parallel_tool_calls": tools.parallel,
    }


def _output(flavour: Flavour, request: GenerationRequest) -> dict[str, object]:
    output = request.output
    if output is None:
        return {}
    match output.kind:
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema = checked_schema(output.text)
            if flavour == "llama-cpp-python":
                return {"response_format": {"type": "json_object", "schema": schema}}
            described = {"name": "answer", "schema": schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": described}}
        case "regex":
            expression = checked_expression(output.text)
            return {"structured_outputs": {"regex": expression}} if flavour == "vllm" else {"regex": expression}
        case "lark":
            raise EngineError("unsupported", "the engine behind this model takes no Lark grammar")


def _privacy(flavour: Flavour, owner: bytes) -> dict[str, object]:
    """Prompts read for one requester must not speed up another's: the time would tell what was asked before."""
    match flavour:
        case "llama-server":
            return {"cache_prompt": False}
        case "vllm" | "sglang":
            whose = hashlib.sha256(_SALT + owner).hexdigest() if owner else secrets.token_hex(32)
            return {"cache_salt": whose}
        case _:
            return {}
