"""What an engine can do beyond temperature, top_p, seed and stop, and what a job needs of it (spec 03, "Features")."""

from __future__ import annotations

from typing import Final

from ryvion_protocol.messages import JobRequest, Sampling

FEATURES: Final[dict[str, str]] = {
    "counted": "counts prompt and completion with the model's own tokenizer under its own template, as Billing asks",
    "json_object": "holds the answer to JSON",
    "json_schema": "holds the answer to a JSON Schema",
    "lark": "holds the answer to a Lark grammar",
    "logit_bias": "adds to the logits of given tokens",
    "logprobs": "tells log-probabilities",
    "min_p": "leaves out tokens below a fraction of the likeliest one's probability",
    "penalties": "presence and frequency penalty",
    "prefix": "continues a last assistant message",
    "regex": "holds the answer to a regular expression",
    "repetition_penalty": "weakens tokens that prompt or completion holds",
    "seeded": "draws tokens as spec 05 has it, so that anyone who holds the model can check them",
    "tools": "puts tools into the prompt, and tells calls of them apart from text",
    "top_k": "keeps only so many of the likeliest tokens",
}
"""Every known code with its meaning. Codes of later versions are legal and ignored."""


def needed_features(sampling: Sampling, request: JobRequest) -> tuple[str, ...]:
    """The features without which this job cannot be run as it was ordered, in rising order."""
    tools = bool(request.tools.tools) or any(turn.tool_calls or turn.role == "tool" for turn in request.messages)
    needs = {
        "top_k": sampling.top_k != 0,
        "min_p": sampling.min_p_millionths != 0,
        "penalties": sampling.presence_penalty != 0 or sampling.frequency_penalty != 0,
        "repetition_penalty": sampling.repetition_penalty_millionths != 1_000_000,
        "logit_bias": bool(request.logit_bias),
        "logprobs": request.logprobs,
        "tools": tools,
        "prefix": request.messages[-1].role == "assistant",
        request.output.kind: request.output.kind != "text",
    }
    return tuple(sorted(code for code, needed in needs.items() if needed))
