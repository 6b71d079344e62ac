"""The JSON of answers, as plain values: placements, outcomes, completions, models, receipts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ryvion_node.market.interface import Outcome, Placement
from ryvion_protocol.messages import Hardware, ModelOffer, Offer
from ryvion_protocol.receipt import receipt_to_json
from ryvion_protocol.schema import JobId

COMPLETION_PREFIX: Final = "chatcmpl-"
MAX_CANDIDATES_SHOWN: Final = 16
"""Of a decision, in an answer: the winner and the bids come first, and a large market must not swell every answer."""
_JOB_NAME: Final = re.compile(COMPLETION_PREFIX + "([0-9a-f]{64})")


def job_named_by(completion_id: str) -> JobId | None:
    """The job that an id is made of: completions were once named after their only job."""
    match = _JOB_NAME.fullmatch(completion_id)
    return None if match is None else JobId(match[1])


def fingerprint_of(placement: Placement) -> str:
    """OpenAI's `system_fingerprint`: here, which weights answered."""
    return f"fp_{placement.digest.hex()[:16]}"


def placement_json(placement: Placement) -> dict[str, object]:
    """Who runs a job and why. Prices in micro-credits per million tokens."""
    won = next((c for c in placement.route.candidates if c.node_key == placement.node_key), None)
    return {
        "job_id": placement.job_id,
        "node_id": placement.node_key.hex(),
        "peer_id": placement.peer_id,
        "gpu": placement.hardware.name,
        "hardware": hardware_json(placement.hardware),
        "jurisdiction": placement.jurisdiction,
        "location": placement.location,
        "model_digest": placement.digest.hex(),
        "price_in": placement.price_in,
        "price_out": placement.price_out,
        "why": won.reason if won is not None else placement.route.explanation,
    }


def taken_json(placement: Placement) -> dict[str, object]:
    """The placement with the decision behind it: the `ryvion` object of a stream's first chunk."""
    route = placement.route
    ranked = sorted(route.candidates, key=lambda candidate: candidate.outcome not in ("won", "bid"))
    shown = dataclasses.replace(route, candidates=tuple(ranked[:MAX_CANDIDATES_SHOWN]))
    return placement_json(placement) | {"route": plain(shown)}


def plain(value: object) -> object:
    """Dataclasses as JSON objects, bytes as lowercase hex, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def hardware_json(hardware: Hardware) -> dict[str, object]:
    """What runs the models."""
    return {
        "name": hardware.name,
        "count": hardware.count,
        "memory_bytes": hardware.memory_bytes,
        "backend": hardware.backend,
    }


def outcome_json(placement: Placement, outcome: Outcome) -> dict[str, object]:
    """The placement and the evidence: the `ryvion` object of the finish chunk; of whole answers with the decision."""
    return placement_json(placement) | {
        "receipt": receipt_to_json(outcome.receipt),
        "cid": outcome.cid,
        "envelope": outcome.envelope,
        "checks": [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in outcome.checks],
        "accepted": outcome.accepted,
        "cost_microcredits": outcome.cost,
        "first_token_ms": outcome.first_token_ms,
        "duration_ms": outcome.duration_ms,
        "tokens_per_s": _tokens_per_s(outcome),
    }


def usage_json(outcomes: Sequence[Outcome], choices: int) -> dict[str, object]:
    """Token counts of an answer with so many choices of each prompt, which counts once, by the first of them.

    Of one choice these are as billed. Of several, each is billed with its prompt: receipts and costs say so.
    """
    first = outcomes[::choices]
    prompt_tokens = sum(outcome.prompt_tokens for outcome in first)
    completion_tokens = sum(outcome.completion_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(outcome.cached_tokens for outcome in first)},
        "completion_tokens_details": {"reasoning_tokens": sum(outcome.reasoning_tokens for outcome in outcomes)},
    }


@dataclass(slots=True)
class _Listing:
    offers: list[tuple[Offer, ModelOffer]]

    def to_json(self, name: str) -> dict[str, object]:
        models = [model for _, model in self.offers]
        return {
            "id": name,
            "object": "model",
            "created": min(offer.issued_ms for offer, _ in self.offers) // 1000,
            "owned_by": "ryvion",
            "ryvion": {
                "kinds": sorted({model.kind for model in models}),
                "nodes": len({offer.node_key for offer, _ in self.offers}),
                "jurisdictions": sorted({offer.jurisdiction for offer, _ in self.offers}),
                "price_in": {"min": min(m.price_in for m in models), "max": max(m.price_in for m in models)},
                "price_out": {"min": min(m.price_out for m in models), "max": max(m.price_out for m in models)},
                "context_tokens": max(model.context_tokens for model in models),
                "digests": sorted({model.digest.hex() for model in models}),
                "quantisations": sorted({model.quantisation for model in models}),
                "slots_free": sum(model.slots_free for model in models),
                "features": sorted({feature for model in models for feature in model.features}),
            },
        }


def models_json(offers: tuple[Offer, ...]) -> dict[str, dict[str, object]]:
    """Every model on offer, by name; the offers of one name are summed up."""
    listings: dict[str, _Listing] = {}
    for offer in offers:
        for model in offer.models:
            listings.setdefault(model.name, _Listing([])).offers.append((offer, model))
    return {name: listings[name].to_json(name) for name in sorted(listings)}


def _tokens_per_s(outcome: Outcome) -> float | None:
    """Speed after the first token; None when one token or less leaves nothing to measure."""
    elapsed_ms = outcome.duration_ms - outcome.first_token_ms
    if outcome.completion_tokens < 2 or elapsed_ms <= 0:
        return None
    return round((outcome.completion_tokens - 1) * 1000 / elapsed_ms, 2)
