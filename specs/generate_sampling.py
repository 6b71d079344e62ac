"""Vectors of spec 05. `python -m specs.generate_sampling [--check]`."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from ryvion_protocol.messages import Sampling
from ryvion_protocol.zigzag import zigzag
from specs.sampling_reference import (
    Place,
    chosen_token,
    kept_tokens,
    log_probabilities,
    margin,
    noise_halves,
    ruled_logits,
)
from specs.vector_form import JsonValue, Vector, main, plain

PLAIN: Final = Sampling(800_000, 1_000_000, 7)
GREEDY: Final = replace(PLAIN, temperature_millionths=0)
FALLING: Final = (3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -8.0)
TIES: Final = (1.0, 2.0, 2.0, 2.0, -1.0, 2.0)
LOPSIDED: Final = (0.25, 6.5, -3.0, 4.75, 1.0, 0.0, -0.125, 2.0)


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [
        _sample("sample-worked", ("R-05-11", "R-05-12"), "The worked example.", Place(LOPSIDED, PLAIN, 11)),
        *_noise(),
        *_greedy(),
        *_filters(),
        *_before(),
        *_margins(),
        _logprobs("logprobs", "The raw logits, whatever the rules.", LOPSIDED),
        _logprobs("logprobs-wide", "A spread at which careless sums overflow.", (1000.0, 999.0, -1000.0)),
    ]


def _noise() -> Sequence[Vector]:
    return [
        _noise_vector("noise-first", "Two runs of Philox, the second cut.", 7, 11, 13),
        _noise_vector("noise-zero", "Seed and position 0.", 0, 0, 8),
        _noise_vector("noise-greatest", "The greatest seed, a late position.", 2**64 - 1, 131_071, 8),
        *(
            _sample(
                f"sample-position-{position}",
                ("R-05-11", "R-05-12"),
                "Equal logits: the noise alone decides.",
                Place((0.0,) * 9, PLAIN, position),
            )
            for position in (0, 1, 2, 4096)
        ),
        _sample(
            "sample-other-seed",
            ("R-05-11",),
            "As the worked example, but for the seed.",
            Place(LOPSIDED, replace(PLAIN, seed=39), 11),
        ),
    ]


def _greedy() -> Sequence[Vector]:
    return [
        _sample("greedy", ("R-05-7",), "Temperature 0.", Place(LOPSIDED, GREEDY, 11)),
        _sample("greedy-tie", ("R-05-7",), "Four equals: the lowest id.", Place(TIES, GREEDY, 11)),
        _sample(
            "greedy-no-filter",
            ("R-05-7",),
            "At temperature 0 the filters do not apply.",
            Place(TIES, replace(GREEDY, top_k=1, top_p_millionths=1, min_p_millionths=1_000_000), 11),
        ),
    ]


def _filters() -> Sequence[Vector]:
    flat = replace(PLAIN, temperature_millionths=2_000_000)
    rows: list[tuple[str, str, str, tuple[float, ...], Sampling]] = [
        ("top-k", "R-05-8", "Three are left.", FALLING, replace(flat, top_k=3)),
        ("top-k-tie", "R-05-8", "Among equals the lowest ids stay.", TIES, replace(flat, top_k=2)),
        ("top-k-all", "R-05-8", "More than there are tokens.", TIES, replace(flat, top_k=4000)),
        ("top-p", "R-05-9", "The nucleus.", FALLING, replace(flat, top_p_millionths=600_000)),
        ("top-p-one", "R-05-9", "Never empty.", FALLING, replace(flat, top_p_millionths=1)),
        (
            "top-p-border",
            "R-05-9",
            "Predecessors that sum to exactly top_p close it: two of four equals.",
            (1.0, 1.0, 1.0, 1.0),
            replace(flat, top_p_millionths=500_000),
        ),
        (
            "top-p-past-border",
            "R-05-9",
            "A millionth more lets one more in.",
            (1.0, 1.0, 1.0, 1.0),
            replace(flat, top_p_millionths=500_001),
        ),
        (
            "top-k-before-top-p",
            "R-05-9",
            "top_p counts what top_k left as the whole.",
            FALLING,
            replace(flat, top_k=4, top_p_millionths=600_000),
        ),
        (
            "min-p",
            "R-05-10",
            "Half as likely as the likeliest, or more.",
            FALLING,
            replace(flat, min_p_millionths=500_000),
        ),
        (
            "min-p-one",
            "R-05-10",
            "Only those as likely as the likeliest.",
            TIES,
            replace(flat, min_p_millionths=1_000_000),
        ),
        (
            "all-filters",
            "R-05-1",
            "Each works on what the one before it left.",
            FALLING,
            replace(flat, top_k=8, top_p_millionths=950_000, min_p_millionths=300_000),
        ),
    ]
    return [
        _sample(name, (requirement,), comment, Place(logits, rules, 5))
        for name, requirement, comment, logits, rules in rows
    ]


def _before() -> Sequence[Vector]:
    """Bias, penalties and mask; greedy, so that they alone decide."""
    repetition = replace(GREEDY, repetition_penalty_millionths=2_500_000)
    presence = replace(GREEDY, presence_penalty=zigzag(750_000))
    frequency = replace(GREEDY, frequency_penalty=zigzag(750_000))
    every = replace(
        PLAIN,
        repetition_penalty_millionths=1_200_000,
        presence_penalty=zigzag(300_000),
        frequency_penalty=zigzag(200_000),
        top_k=6,
        top_p_millionths=950_000,
        min_p_millionths=20_000,
    )
    place = Place(FALLING, GREEDY, 9, prompt=(2, 2, 4), completion=(0, 0, 1))
    seen = {"repetition": repetition, "presence": presence, "frequency": frequency}
    comments = {
        "repetition": "Prompt and completion: 0, 1 and 2 fall behind 3.",
        "presence": "The completion only, and however often: 0 stays first, though it was there twice.",
        "frequency": "The completion only, each time: 2 comes first, though the prompt holds it.",
    }
    requirements = {"repetition": "R-05-4", "presence": "R-05-5", "frequency": "R-05-5"}
    return [
        _sample("bias", ("R-05-3",), "One up, one down.", replace(place, bias={5: 3_000_000, 0: -100_000_000})),
        _sample(
            "bias-before-repetition",
            ("R-05-1", "R-05-4"),
            "The bias makes the logit negative, so the penalty multiplies it.",
            Place((1.0, -3.5), repetition, 9, prompt=(0,), bias={0: -3_000_000}),
        ),
        *(
            _sample(f"penalty-{name}", (requirements[name],), comments[name], replace(place, sampling=rules))
            for name, rules in seen.items()
        ),
        _sample(
            "penalty-repetition-negative",
            ("R-05-4",),
            "A negative logit is multiplied.",
            Place((-1.0, -1.5), repetition, 9, prompt=(0,)),
        ),
        _sample(
            "penalty-negative",
            ("R-05-5",),
            "A negative penalty favours what was said.",
            replace(place, completion=(1,), sampling=replace(GREEDY, presence_penalty=zigzag(-750_000))),
        ),
        _sample("mask", ("R-05-6",), "The likeliest that is allowed.", replace(place, allowed=(4, 6, 9))),
        _sample("mask-one", ("R-05-6", "R-05-12"), "Only one.", replace(place, sampling=every, allowed=(9,))),
        _sample(
            "mask-before-top-k",
            ("R-05-1", "R-05-6"),
            "The two likeliest of those allowed, not those allowed of the two likeliest.",
            replace(place, sampling=replace(PLAIN, top_k=2), allowed=(3, 5, 7, 9)),
        ),
        *(
            _sample(
                f"everything-{position}",
                ("R-05-1", "R-05-2"),
                "All rules at once.",
                replace(place, sampling=every, position=position, bias={7: 2_000_000}, allowed=(0, 1, 3, 4, 5, 6, 7)),
            )
            for position in (9, 10, 11)
        ),
    ]


def _margins() -> Sequence[Vector]:
    place = Place(LOPSIDED, replace(PLAIN, top_k=4), 11)
    return [
        _margin("margin-chosen", "The chosen token.", place, chosen_token(place)),
        _margin("margin-other", "Another that was left.", place, 7),
        _margin("margin-excluded", "One that top_k dropped.", place, 2),
        _margin("margin-greedy", "In logits.", Place(LOPSIDED, GREEDY, 11), 3),
        _margin("margin-masked", "One that the grammar forbids.", Place(LOPSIDED, PLAIN, 11, allowed=(0, 1)), 3),
    ]


def _given(place: Place) -> Mapping[str, JsonValue]:
    return {
        "sampling": plain(place.sampling),
        "logit_bias": [[token, zigzag(millionths)] for token, millionths in place.bias.items()],
        "position": place.position,
        "prompt": list(place.prompt),
        "completion": list(place.completion),
        "allowed": None if place.allowed is None else list(place.allowed),
    }


def _packed(logits: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(logits)}f", *logits)


def _sample(name: str, requirements: tuple[str, ...], comment: str, place: Place) -> Vector:
    gives: dict[str, JsonValue] = {"token": chosen_token(place)}
    if place.sampling.temperature_millionths:
        gives["kept"] = kept_tokens(ruled_logits(place), place.sampling)
    return Vector(name, requirements, comment, "sample", _packed(place.logits), given=_given(place), gives=gives)


def _noise_vector(name: str, comment: str, seed: int, position: int, size: int) -> Vector:
    given: dict[str, JsonValue] = {"seed": seed, "position": position, "size": size}
    gives: dict[str, JsonValue] = {"halves": noise_halves(seed, position, size)}
    return Vector(name, ("R-05-11",), comment, "noise", b"", given=given, gives=gives)


def _margin(name: str, comment: str, place: Place, token: int) -> Vector:
    found = margin(place, token)
    gives: dict[str, JsonValue] = {"margin_millionths": None if math.isinf(found) else round(found * 1_000_000)}
    given = {**_given(place), "token": token}
    return Vector(name, ("R-05-14",), comment, "margin", _packed(place.logits), given=given, gives=gives)


def _logprobs(name: str, comment: str, logits: Sequence[float]) -> Vector:
    gives: dict[str, JsonValue] = {"millionths": [round(value * 1_000_000) for value in log_probabilities(logits)]}
    return Vector(name, ("R-05-2",), comment, "logprobs", _packed(logits), gives=gives)


if __name__ == "__main__":
    main("05", "sampling", vectors)
