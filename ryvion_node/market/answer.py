"""Is what an executor streams an answer to what was ordered? Pure; what is checked, and what is not, has its reason here.

Faults are those that only a broken or lying executor can commit, whatever its model says:
log-probabilities that nobody asked for, or none although they were asked for; calls of tools that do not exist, calls
although none or only one was allowed, no call although one was demanded; a reason for the end that does not go with
the answer; text that is no JSON although the order holds it to JSON. Text beside a demanded call is no fault, since
models explain what they do, nor are arguments that are no JSON, which is the model's doing where no grammar holds it.
"""

from __future__ import annotations

import json

from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import Delta, Finished, JobRequest
from ryvion_protocol.transcript import ResultBuilder


class AnswerRules:
    """Holds the Deltas of one job, and its end, to the request."""

    def __init__(self, request: JobRequest, max_completion_tokens: int) -> None:
        self._request = request
        self._tools = frozenset(tool.name for tool in request.tools.tools)
        if request.tools.choice == "named":
            self._tools = frozenset((request.tools.name,))
        elif request.tools.choice == "none":
            self._tools = frozenset()
        self._max_logprobs = max_completion_tokens + 1
        self._logprobs = 0

    def check(self, delta: Delta) -> None:
        """Raise PayloadInvalid when this Delta cannot belong to an answer that was asked for."""
        request = self._request
        self._logprobs += len(delta.logprobs)
        _require(request.logprobs or not delta.logprobs, "logprobs", "log-probabilities came, nobody asked for them")
        _require(self._logprobs <= self._max_logprobs, "logprobs", "more log-probabilities than tokens ordered")
        most = max((len(one.top) for one in delta.logprobs), default=0)
        _require(most <= request.top_logprobs, "logprobs", f"{most} alternatives, {request.top_logprobs} were wanted")
        for piece in delta.calls:
            _require(piece.name == "" or piece.name in self._tools, "tool_calls", "a tool was called that may not be")
            _require(
                request.tools.parallel or piece.index == 0, "tool_calls", "several tools were called, one was allowed"
            )

    def check_end(self, finished: Finished, result: ResultBuilder) -> None:
        """Raise PayloadInvalid when the answer as a whole is none; one that was cut short may be anything."""
        called = bool(result.calls)
        _require(finished.reason != "tool_calls" or called, "tool_calls", "it ended with tool calls, but made none")
        if finished.reason == "length":
            return
        request = self._request
        _require(finished.reason != "stop" or not called, "tool_calls", "it made tool calls, but does not say so")
        forced = request.tools.choice in ("required", "named")
        _require(called or not forced, "tool_calls", "a tool had to be called, none was")
        missing = request.logprobs and result.text_bytes > 0 and self._logprobs == 0
        _require(not missing, "logprobs", "log-probabilities were asked for, none came")
        is_json = request.output.kind in ("json_object", "json_schema")
        # A stop text may end it early, and what continues a last assistant message is only a part.
        if is_json and not called and not request.stop and request.messages[-1].role != "assistant":
            self._check_json(result.content)

    def _check_json(self, text: str) -> None:
        """Whether it follows the schema is left to whoever wrote the schema: two validators seldom agree on all of it."""
        try:
            value = json.loads(text, parse_int=len, parse_float=len)  # numbers of any length cost nothing
        except (ValueError, RecursionError):
            raise PayloadInvalid("output_format", "JSON was ordered, this is none") from None
        is_object = isinstance(value, dict) or self._request.output.kind != "json_object"
        _require(is_object, "output_format", "a JSON object was ordered, this is none")


def _require(holds: bool, code: str, message: str) -> None:
    if not holds:
        raise PayloadInvalid(code, message)
