"""Who may be asked at all: hard limits that explain themselves (no clock, no network, no randomness).

They fail closed: an offer that does not say what is asked for falls out, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from ryvion_node.market.constants import DEFAULT_RETRY_MS, EXPECTED_COMPLETION_TOKENS, MAX_REASONS_TOLD
from ryvion_node.market.interface import Candidate, MarketError, Order
from ryvion_node.market.wanted import expected_completion, needed_features
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.preferences import Preferences
from ryvion_protocol.messages import EMBEDDING, ModelOffer, Offer
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.schema import NodeKey


@dataclass(frozen=True, slots=True)
class PromptLength:
    """Tokens of a prompt on one model: our own count, or an upper bound where we lack the tokenizer."""

    tokens: int
    counted: bool


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """One prompt on all models: an upper bound, and our own counts by model digest."""

    bound: int
    counts: Mapping[bytes, int]

    def on(self, model: ModelOffer) -> PromptLength:
        """Our count stands only where the executor promises to count alike (spec 03, `counted`)."""
        count = self.counts.get(model.digest) if "counted" in model.features else None
        return PromptLength(self.bound if count is None else count, counted=count is not None)


@dataclass(frozen=True, slots=True)
class Eligible:
    """An offer that passed every hard limit, with the model entry that fits and the prompt's length on it."""

    offer: Offer
    model: ModelOffer
    prompt: PromptLength

    @property
    def key(self) -> NodeKey:
        return self.offer.node_key

    @property
    def embeds(self) -> bool:
        return self.model.kind == EMBEDDING

    @property
    def prompt_limit(self) -> int:
        """Prompt tokens to ask and pay for at most; each text of an embedding has the context for itself."""
        if self.embeds:
            return self.prompt.tokens
        return min(self.prompt.tokens, self.model.context_tokens - 1)

    @property
    def completion_room(self) -> int:
        """Completion tokens that the context can hold after the prompt."""
        if self.embeds:
            return 0
        return self.model.context_tokens - least_tokens(self.prompt)


Limit = Literal["file", "jurisdiction", "preferences", "context", "price", "features"]


@dataclass(frozen=True, slots=True)
class Miss:
    """The first limit that an offer does not keep. `names`: the preference, or the features that are lacking."""

    limit: Limit
    reason: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FallenOut:
    """An offer that did not pass."""

    offer: Offer
    model: ModelOffer
    miss: Miss


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Outcome of the filters."""

    eligible: tuple[Eligible, ...]
    fallen_out: tuple[FallenOut, ...]

    @property
    def filtered(self) -> list[Candidate]:
        """Those that fell out, as lines of the explanation."""
        return [candidate(one.offer, one.model, "filtered", one.miss.reason) for one in self.fallen_out]


def candidate(offer: Offer, model: ModelOffer | None, outcome: str, reason: str) -> Candidate:
    """One line of the explanation, from an offer."""
    return Candidate(
        node_key=offer.node_key,
        peer_id=peer_id_of(offer.node_key),
        hardware=offer.hardware,
        jurisdiction=offer.jurisdiction,
        location=offer.location,
        price_in=model.price_in if model else 0,
        price_out=model.price_out if model else 0,
        outcome=outcome,  # type: ignore[arg-type]  # one of Candidate's literals; callers pass constants
        reason=reason,
    )


def shortlist(
    offers: Sequence[Offer],
    order: Order,
    own_key: NodeKey,
    prompts: PromptLengths,
    digest: bytes | None = None,
) -> Shortlist:
    """Apply the hard limits. `digest`: the only file that counts."""
    needed = needed_features(order)
    eligible: list[Eligible] = []
    fallen_out: list[FallenOut] = []
    for offer in offers:
        model = next((m for m in offer.models if m.name == order.model and m.kind == order.kind), None)
        if offer.node_key == own_key or model is None:
            continue
        prompt = prompts.on(model)
        miss = (
            _other_file_or_place(offer, model, order, digest)
            or _unwanted(offer, model, order.preferences, prompt)
            or _too_small_or_dear(model, order, prompt)
            or _lacks(model, needed)
        )
        if miss is None:
            eligible.append(Eligible(offer, model, prompt))
        else:
            fallen_out.append(FallenOut(offer, model, miss))
    return Shortlist(tuple(eligible), tuple(fallen_out))


def _other_file_or_place(offer: Offer, model: ModelOffer, order: Order, digest: bytes | None) -> Miss | None:
    if digest is not None and model.digest != digest:
        found, known = model.digest.hex()[:12], digest.hex()[:12]
        return Miss("file", f"sells another file under this name ({found}, not {known})")
    if order.jurisdictions and offer.jurisdiction not in order.jurisdictions:
        return Miss("jurisdiction", f"jurisdiction {offer.jurisdiction} is not {_either(order.jurisdictions)}")
    return None


def _unwanted(offer: Offer, model: ModelOffer, wanted: Preferences, prompt: PromptLength) -> Miss | None:
    """The first preference that is not met, by its name in the `ryvion` object."""

    def miss(name: str, reason: str) -> Miss:
        return Miss("preferences", reason, (name,))

    if wanted.allow is not None and offer.node_key not in wanted.allow:
        nobody = "by request and key together no node may run this"
        return miss("allow", f"allow: {'it is not among the nodes that may run this' if wanted.allow else nobody}")
    if offer.node_key in wanted.deny:
        return miss("deny", "deny: it is among the nodes that may not run this")
    if wanted.digests is not None and model.digest not in wanted.digests:
        known = _either(sorted(digest.hex()[:12] for digest in wanted.digests))
        return miss("digest", f"digest: its file {model.digest.hex()[:12]} is not {known}")
    if wanted.quantisations is not None and model.quantisation.upper() not in wanted.quantisations:
        wish = _either(sorted(wanted.quantisations))
        return miss("quantisation", f"quantisation: {model.quantisation or 'unknown'} is not {wish}")
    if wanted.min_assurance == "count-checked" and not prompt.counted:
        return miss("min_assurance", f"min_assurance: its bill cannot be count-checked, as {_uncounted(model)}")
    return None


def _uncounted(model: ModelOffer) -> str:
    if "counted" not in model.features:
        return "it does not promise to count with the model's own tokenizer"
    return f"the tokenizer of its file {model.digest.hex()[:12]} is not at hand here"


def _too_small_or_dear(model: ModelOffer, order: Order, prompt: PromptLength) -> Miss | None:
    least = least_tokens(prompt)
    if model.kind != EMBEDDING and least + 1 > model.context_tokens:
        context = model.context_tokens
        return Miss("context", f"prompt of {least} tokens or more does not fit its context of {context}")
    if order.max_price is not None:
        completion = expected_completion(order)
        cost = cost_microcredits(prompt.tokens, completion, model.price_in, model.price_out, model.kind)
        if cost > order.max_price:
            limit = order.max_price
            return Miss("price", f"expected cost of {cost} micro-credits is above the limit of {limit}")
    return None


def _lacks(model: ModelOffer, needed: Sequence[str]) -> Miss | None:
    missing = tuple(feature for feature in needed if feature not in model.features)
    return Miss("features", f"lacks: {', '.join(missing)}", missing) if missing else None


def least_tokens(prompt: PromptLength) -> int:
    """A length that the prompt surely has: text seldom has more than 8 bytes a token. The executor refuses the rest."""
    return prompt.tokens if prompt.counted else max(1, prompt.tokens // 8)


def has_room(eligible: Eligible, completion: int | None) -> bool:
    """Do the prompt and an answer of `completion` tokens (None: a usual one) surely fit its context?

    However long an answer may become, it does not claim more than half of the context here. A prompt that we cannot
    count is taken to have two bytes a token, where English has four and the densest scripts have two.
    """
    context = eligible.model.context_tokens
    wanted = min(EXPECTED_COMPLETION_TOKENS, context // 4) if completion is None else min(completion, context // 2)
    tokens = eligible.prompt.tokens if eligible.prompt.counted else eligible.prompt.tokens // 2
    return tokens + wanted <= context


def refuse(order: Order, offers: Sequence[Offer], short: Shortlist) -> MarketError:
    """Why nobody at all is eligible, in the caller's words."""
    serving = [offer for offer in offers if any(m.name == order.model and m.kind == order.kind for m in offer.models)]
    if not serving:
        return _not_on_offer(order, offers)
    if order.jurisdictions and not any(offer.jurisdiction in order.jurisdictions for offer in serving):
        served = ", ".join(sorted({offer.jurisdiction for offer in serving}))
        wanted = _either(order.jurisdictions)
        return MarketError(
            "jurisdiction_not_allowed",
            f"no executor in {wanted} serves the model '{order.model}'; it is served in: {served}",
        )
    # What would have to change is told by those that come closest: the limits are applied in this order.
    left = [one for one in short.fallen_out if one.miss.limit != "jurisdiction"]
    reasons = _some(one.miss.reason for one in left) or "the only executor is this node itself"
    if left and all(one.miss.limit == "file" for one in left):
        return MarketError("model_not_found", f"nobody serves the file that is known as '{order.model}': {reasons}")
    closer = [one for one in left if one.miss.limit not in ("file", "preferences")]
    if left and not closer:
        return _preferences_not_met(order, [one for one in left if one.miss.limit == "preferences"], reasons)
    if closer and all(one.miss.limit == "features" for one in closer):
        missing = tuple(sorted({name for one in closer for name in one.miss.names}))
        message = f"no executor of the model '{order.model}' can do what this request needs: {', '.join(missing)}"
        if len(closer) < len(left):
            message += f" ({reasons})"
        return MarketError("unsupported", message, features=missing)
    if any(one.miss.limit == "context" for one in closer):
        return MarketError("context_length_exceeded", f"this conversation fits no executor: {reasons}")
    if any(one.miss.limit == "price" for one in closer):
        return MarketError(
            "price_limit", f"no executor is within the price limit: {reasons}; raise it, or ask for less"
        )
    return MarketError("no_capacity", f"no executor can take this job: {reasons}", retry_after_ms=10_000)


def _not_on_offer(order: Order, offers: Sequence[Offer]) -> MarketError:
    if not offers:
        mend = "a node that has just started hears of them within seconds; `up --bootstrap` names another to meet them through"
        return MarketError("no_capacity", f"no executor is in reach: {mend}", retry_after_ms=DEFAULT_RETRY_MS)
    names = {m.name for offer in offers for m in offer.models if m.kind == order.kind}
    close = dict.fromkeys(get_close_matches(order.model, sorted(names), n=MAX_REASONS_TOLD))
    told = _some([*close, *sorted(names - close.keys())], ", ", ranked=True)
    on_offer = f"on offer now: {told or 'nothing of that kind'}"
    others = {m.kind for offer in offers for m in offer.models if m.name == order.model}
    wrong = f"'{order.model}' is a model of kind {min(others)}, wanted is {order.kind}" if others else ""
    missing_model = wrong or f"no executor serves the model '{order.model}'"
    return MarketError("model_not_found", f"{missing_model}; {on_offer}")


_ON_OFFER: Final[dict[str, tuple[str, Callable[[FallenOut], str]]]] = {
    "allow": ("nodes", lambda one: peer_id_of(one.offer.node_key)),
    "deny": ("nodes", lambda one: peer_id_of(one.offer.node_key)),
    "digest": ("digests", lambda one: one.model.digest.hex()),
    "quantisation": ("quantisations", lambda one: one.model.quantisation),
}
"""Preference -> what those are called, and where an offer says it."""


def _preferences_not_met(order: Order, unwanted: Sequence[FallenOut], reasons: str) -> MarketError:
    names = sorted({name for one in unwanted for name in one.miss.names})
    told = {what: _some(map(found, unwanted), ", ") for what, found in (_ON_OFFER[n] for n in names if n in _ON_OFFER)}
    on_offer = "; on offer: " + "; ".join(f"{what} {values}" for what, values in told.items()) if told else ""
    message = (
        f"no executor of the model '{order.model}' meets the preferences of this request and its key "
        f"({', '.join(names)}): {reasons}{on_offer}"
    )
    return MarketError("preferences_not_met", message, preference=names[0] if len(names) == 1 else None)


def _either(words: Sequence[str]) -> str:
    if not words:
        return "any that request and key both allow: there is none"
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _some(texts: Iterable[str], joint: str = "; ", *, ranked: bool = False) -> str:
    """Each once, as far as anybody reads; `ranked`: in the order given."""
    distinct = list(dict.fromkeys(texts)) if ranked else sorted(set(texts))
    more = len(distinct) - MAX_REASONS_TOLD
    return joint.join([*distinct[:MAX_REASONS_TOLD], *([f"and {more} more"] if more > 0 else [])])
