"""Doctor's look at what this node sells from files of its own, and for how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ryvion_node.cli.doctor.finding import Finding, fail, ok, warn
from ryvion_node.errors import OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.config import NodeConfig
    from ryvion_node.engine.interface import ModelSpec


def examine_models(paths: Paths, config: NodeConfig) -> Iterator[Finding]:
    """Is each file here and sound, and has it room? A changed digest is found by `models verify`, which reads it all."""
    executor = config.executor
    if executor.enabled and not (executor.price_in or executor.price_out):
        yield warn("price", "everything is sold for nothing", "set [executor] price_in and price_out, or use the flags")
    if not executor.models:
        return
    from ryvion_node.library.lookup import Library

    try:
        specs = Library(paths).specs(config)
    except OperatorError as exc:
        yield fail("model", str(exc), "correct its [[executor.models]] table, or fetch the file")
        return
    for spec in specs:
        yield _look(spec, executor.memory_budget)


def _look(spec: ModelSpec, budget_bytes: int | None) -> Finding:
    from ryvion_node.engine.gguf import GgufError
    from ryvion_node.engine.gguf_shape import read_shape
    from ryvion_node.engine.memory import context_of, estimate, shown

    try:
        shape = read_shape(spec.path)
    except GgufError as exc:
        return fail("model", f"{spec.name}: {exc}", "fetch or copy the file again, or correct `path`")
    context_tokens = context_of(shape, spec.context_tokens)
    if shape.context_tokens and context_tokens > shape.context_tokens:
        return fail(
            "model",
            f"{spec.name}: a context of {context_tokens} tokens is configured",
            f"set context_tokens to at most {shape.context_tokens}, with which it was trained",
        )
    taken = estimate(shape, slots=spec.slots, context_tokens=context_tokens)
    found = f"{spec.name}: {spec.slots} slots of {context_tokens} tokens take {shown(taken.total_bytes)}"
    if budget_bytes is not None and spec.gpu_layers < 0 and taken.total_bytes > budget_bytes:
        return fail(
            "model",
            f"{found}, memory_budget is {shown(budget_bytes)}",
            "configure fewer slots or a smaller context, take a smaller quantisation, or raise memory_budget",
        )
    return ok("model", found)
