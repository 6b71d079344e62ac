"""From what a requester ordered to what the engine is asked for, and back from its log-probabilities (pure; spec 04)."""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence
from typing import Final

from ryvion_node.engine import interface as engine
from ryvion_protocol.constants import MAX_TOP_LOGPROBS
from ryvion_protocol.messages import Alternative, ChatMessage, JobOffer, JobRequest, OutputFormat, TokenLogprob, ToolUse
from ryvion_protocol.zigzag import unzigzag

_MILLION: Final = 1_000_000
_MAX_MINUS_MICRONATS: Final = 2**32 - 1
"""Stands for a probability of zero as well."""
_MAX_TOKEN_BYTES: Final = 256
"""Of a token in a Delta: no vocabulary in use has longer ones."""
_CHOICES: Final = typing.get_args(typing.get_type_hints(engine.ToolUse)["choice"])
_OUTPUTS: Final = typing.get_args(typing.get_type_hints(engine.OutputFormat)["kind"])


def generation_request(offer: JobOffer, request: JobRequest) -> engine.GenerationRequest:
    """The engine's job. Raises EngineError `unsupported` for words of a later version, and for no tokens at all."""
    said = offer.sampling
    if offer.max_completion_tokens < 1:
        raise engine.EngineError("unsupported", "an order of a chat has at least one completion token")
    return engine.GenerationRequest(
        model=offer.model,
        turns=turns_of(request.messages),
        max_tokens=offer.max_completion_tokens,
        sampling=engine.Sampling(
            temperature=said.temperature_millionths / _MILLION,
            top_p=said.top_p_millionths / _MILLION,
            seed=said.seed,
            top_k=said.top_k,
            min_p=said.min_p_millionths / _MILLION,
            presence_penalty=unzigzag(said.presence_penalty) / _MILLION,
            frequency_penalty=unzigzag(said.frequency_penalty) / _MILLION,
            repetition_penalty=said.repetition_penalty_millionths / _MILLION,
            logit_bias=tuple((bias.token, unzigzag(bias.bias) / _MILLION) for bias in request.logit_bias),
        ),
        stop=request.stop,
        tools=tools_of(request.tools),
        output=_output_of(request.output),
        logprobs=request.top_logprobs if request.logprobs else None,
        owner=offer.requester_key,
    )


def turns_of(messages: Sequence[ChatMessage]) -> tuple[engine.Turn, ...]:
    """Messages as the engine's turns."""
    return tuple(
        engine.Turn(
            role=message.role,
            content=message.content,
            name=message.name,
            tool_calls=tuple(engine.ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls),
            tool_call_id=message.tool_call_id,
        )
        for message in messages
    )


def tools_of(use: ToolUse) -> engine.ToolUse:
    """Tools as the engine takes them; raises EngineError for an unknown `choice`."""
    if use.choice not in _CHOICES:
        raise engine.EngineError("unsupported", f"tool choice '{use.choice}' is not known here")
    return engine.ToolUse(
        tools=tuple(engine.Tool(tool.name, tool.description, tool.parameters) for tool in use.tools),
        choice=use.choice,  # type: ignore[arg-type]  # just looked up among the literals
        name=use.name,
        parallel=use.parallel,
    )


def _output_of(output: OutputFormat) -> engine.OutputFormat | None:
    if output.kind == "text":
        return None
    if output.kind not in _OUTPUTS:
        raise engine.EngineError("unsupported", f"output format '{output.kind}' is not known here")
    return engine.OutputFormat(output.kind, output.grammar)  # type: ignore[arg-type]  # just looked up


def wire_logprob(said: engine.TokenLogprob) -> TokenLogprob:
    """A token's log-probability as it goes into a Delta: whole millionths, within the frame's limits."""
    return TokenLogprob(_alternative(said.chosen), tuple(map(_alternative, said.top[:MAX_TOP_LOGPROBS])))


def _alternative(said: engine.Alternative) -> Alternative:
    return Alternative(said.piece[:_MAX_TOKEN_BYTES], _minus_micronats(said.logprob))


def _minus_micronats(logprob: float) -> int:
    if math.isnan(logprob):
        return _MAX_MINUS_MICRONATS
    minus_nats = min(max(-logprob, 0.0), _MAX_MINUS_MICRONATS / _MILLION)
    return round(minus_nats * _MILLION)
