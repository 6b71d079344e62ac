"""200 random schemas on the real model at temperature 1: each answer that ends by itself is valid."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import jsonschema
import trio
from random_schemas import random_schema

from ryvion_node.engine.interface import ModelSpec, OutputFormat, Sampling, Turn
from tests.node.engine.engine_support import REQUEST, TINY, collect, end_of, running, text_of

SCHEMAS = 200
SLOTS = 8
CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER


async def test_random_schemas_are_kept() -> None:
    """R-05-6, R-05-15: every grammar's answer, and none ends but by itself or by max_tokens."""
    reasons: Counter[str] = Counter()
    waiting = list(range(SCHEMAS))

    async with running(ModelSpec("tiny", TINY, slots=SLOTS, context_tokens=1024, threads=1)) as engine:

        async def answer_all() -> None:
            while waiting:
                await answer(waiting.pop())

        async def answer(seed: int) -> None:
            schema = random_schema(seed)
            request = replace(
                REQUEST,
                model="tiny",
                turns=(Turn("user", "Tell me something."),),
                max_tokens=700,
                sampling=Sampling(1.0, seed=seed),
                output=OutputFormat("json_schema", json.dumps(schema)),
            )
            events = await collect(engine, request)
            reason, text = end_of(events).reason, text_of(events)
            reasons[reason] += 1
            if reason == "stop":
                jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(json.loads(text))

        async with trio.open_nursery() as nursery:
            for _ in range(SLOTS):
                nursery.start_soon(answer_all)
    assert set(reasons) <= {"stop", "length"}
    assert reasons["length"] <= SCHEMAS // 100
    assert sum(reasons.values()) == SCHEMAS
