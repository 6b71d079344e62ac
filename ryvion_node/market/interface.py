"""Buying a completion or vectors, as the local endpoint, the CLI and the demo see it.

`buyer.py` is the real market; `fake.py` a scripted one for the endpoint's tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

from ryvion_node.ledger.spending import UNLIMITED, Allowance
from ryvion_node.preferences import ANY_OFFER, Preferences, Sort
from ryvion_protocol.checks import Check
from ryvion_protocol.messages import (
    CHAT,
    EMBEDDING,
    CallPiece,
    ChatMessage,
    Hardware,
    LogitBias,
    Offer,
    OutputFormat,
    Receipt,
    TokenLogprob,
    ToolUse,
)
from ryvion_protocol.schema import JobId, NodeKey

NO_TOOLS: Final = ToolUse()
ANY_TEXT: Final = OutputFormat()

MarketErrorCode = Literal[
    "model_not_found",  # nobody offers it; the message names what is on offer
    "jurisdiction_not_allowed",  # offered, but by nobody in the jurisdictions asked for
    "context_length_exceeded",  # prompt + answer fit no offer's context
    "unsupported",  # no executor of this model can do all that the order asks; `features` names what is lacking
    "prompt_refused",  # the model's template does not take these messages, or this text
    "grammar_invalid",  # the schema or tools asked for make no grammar
    "preferences_not_met",  # nobody is as the caller's preferences ask; `preference` names the one, when it is one
    "price_limit",  # every offer is above the limit of the caller or of this node
    "budget_exhausted",  # the key that pays has spent what it may, for this day or for good
    "spending_velocity",  # it has spent what it may in 60 minutes: try later
    "budget_held",  # its running jobs may still cost what is left: try when they have ended
    "no_capacity",  # offers exist, all are busy or out of reach: try later
    "rate_limited",  # the executors that could take the job say that this node asks too often: try later
    "node_timeout",  # an executor took the job and stalled, and no other could be had
    "node_failed",  # an executor failed, and no other could be had (or text had already been delivered)
]


class MarketError(Exception):
    """A job could not be placed or finished. `retry_after_ms` is set when trying again may help."""

    def __init__(
        self,
        code: MarketErrorCode,
        message: str,
        retry_after_ms: int | None = None,
        *,
        features: tuple[str, ...] = (),
        preference: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code: MarketErrorCode = code
        self.retry_after_ms = retry_after_ms
        self.features = features
        """What the order needs and nobody has (spec 03, "Features"); with the code `unsupported`."""
        self.preference = preference
        """With the code `preferences_not_met`: its name in the `ryvion` object; None when there are several."""


class NotRecorded(Exception):
    """What is about to leave this machine could not be put on record, so it does not leave; the message says why."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A node that is about to get what was ordered."""

    job_id: JobId
    node_key: NodeKey
    jurisdiction: str
    """Where it says it is."""


Witness = Callable[[Recipient], Awaitable[None]]
"""Told of a node before it gets anything: of every node that a job is tried with. Raises NotRecorded."""


@dataclass(frozen=True, slots=True)
class Account:
    """For whom an order is bought, and what its key may spend."""

    key_id: str = ""
    completion_id: str = ""
    """What the caller is told its answer is called; several jobs may work on one answer."""
    allowance: Allowance = UNLIMITED


NO_ACCOUNT: Final = Account()


@dataclass(frozen=True, slots=True)
class ChatOrder:
    """One chat completion to buy."""

    kind: ClassVar[str] = CHAT

    model: str
    messages: tuple[ChatMessage, ...]
    max_completion_tokens: int | None
    """None: as much as the executor's context leaves room for, at most 4096."""
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    """-2 .. 2, as `frequency_penalty`."""
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """0.01 .. 10."""
    logit_bias: tuple[LogitBias, ...] = ()
    """In rising order of tokens."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: ToolUse = NO_TOOLS
    output: OutputFormat = ANY_TEXT
    logprobs: int | None = None
    """None: none; else with each token its log-probability and so many alternatives (0 .. 20)."""
    chunk_hashes: tuple[bytes, ...] = ()
    """SHA-256 of each retrieved passage in the messages, in their order; at most 64."""
    jurisdictions: tuple[str, ...] = ()
    """ISO 3166-1 alpha-2; any of these; empty: anywhere. Groups are expanded before."""
    max_price: int | None = None
    """Micro-credits for the whole job."""
    tells_max_price: bool = True
    """Are executors told it? Not when it is what a key has left, which is none of their business."""
    preferences: Preferences = ANY_OFFER
    """Its `max_price` is of the whole answer, and several jobs may work on one: what holds for this job is the order's."""
    features: tuple[str, ...] = ()
    """In rising order: needed besides those that follow from the rest (spec 03, "Features")."""
    account: Account = NO_ACCOUNT
    witness: Witness | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingOrder:
    """Vectors of texts to buy; the other fields are as in ChatOrder."""

    kind: ClassVar[str] = EMBEDDING

    model: str
    texts: tuple[str, ...]
    """1 .. 2,048, none of them empty."""
    jurisdictions: tuple[str, ...] = ()
    max_price: int | None = None
    tells_max_price: bool = True
    preferences: Preferences = ANY_OFFER
    features: tuple[str, ...] = ()
    account: Account = NO_ACCOUNT
    witness: Witness | None = None


Order = ChatOrder | EmbeddingOrder


@dataclass(frozen=True, slots=True)
class Candidate:
    """One offer in a decision: why it fell out, or what it bid."""

    node_key: NodeKey
    peer_id: str
    hardware: Hardware
    jurisdiction: str
    location: str
    price_in: int
    price_out: int
    outcome: Literal["filtered", "not_asked", "refused", "unreachable", "no_answer", "bid", "won"]
    reason: str
    """For a person: the filter, the refusal, or how the bid ranked."""
    first_token_ms: int | None = None
    expected_cost: int | None = None
    """Micro-credits, when it bid."""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The explained choice: the same data in the API, the CLI and the demo."""

    model: str
    jurisdictions: tuple[str, ...]
    sort: Sort
    """What the bids were ranked by."""
    candidates: tuple[Candidate, ...]
    winner: NodeKey | None
    explanation: str
    decided_ms: int
    """How long the quote round took, in ms."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Who runs the job."""

    job_id: JobId
    node_key: NodeKey
    peer_id: str
    model: str
    digest: bytes
    hardware: Hardware
    jurisdiction: str
    location: str
    price_in: int
    price_out: int
    route: Route


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, with the evidence and our own verdict on it."""

    finish_reason: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Of the prompt's, those that the executor had read before."""
    reasoning_tokens: int
    """Of the completion's."""
    receipt: Receipt
    cid: str
    envelope: dict[str, object]
    """The audit envelope as exported: the signed packet in base64, and its fields (`ryvion_protocol.exported`)."""
    checks: tuple[Check, ...]
    accepted: bool
    cost: int
    """Micro-credits settled: 0 when the receipt was not accepted."""
    first_token_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Just before the first piece: who runs the job now, after any failover.

    An embedding may have a second one: what came before it is void, and all vectors come anew.
    """

    placement: Placement


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer, never all empty; texts are whole characters."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    """A call's first piece has its id and name; calls come one after the other."""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorsPiece:
    """Vectors of the next texts, in the order of the texts: little-endian float32, `dimensions` numbers each."""

    dimensions: int
    values: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Always the last event of a job that ended well."""

    outcome: Outcome


JobEvent = Taken | Piece | Done
EmbeddingEvent = Taken | VectorsPiece | Done


class BoughtJob(Protocol):
    """A job that an executor has accepted."""

    @property
    def placement(self) -> Placement:
        """Who accepted it; a failover before the first token may change it (see `Taken`)."""
        ...

    def events(self) -> AsyncIterator[JobEvent]:
        """Taken, Piece*, Done; raises MarketError when the job breaks."""
        ...


class BoughtEmbedding(Protocol):
    """An embedding that an executor has accepted."""

    @property
    def placement(self) -> Placement:
        """As in BoughtJob."""
        ...

    def events(self) -> AsyncIterator[EmbeddingEvent]:
        """Taken, VectorsPiece*, Done; with Done every text has had its vector since the last Taken. Raises MarketError
        when the job breaks.
        """
        ...


class Market(Protocol):
    """The requester's side."""

    def buy(self, order: ChatOrder) -> AbstractAsyncContextManager[BoughtJob]:
        """Place a job: entering returns once an executor accepted it, or raises MarketError; leaving cancels what runs."""
        ...

    def embed(self, order: EmbeddingOrder) -> AbstractAsyncContextManager[BoughtEmbedding]:
        """As `buy`, for vectors."""
        ...

    async def route(self, order: Order) -> Route:
        """Hold the quote round and explain the choice, without running a job; that nobody may is a decision too.

        Raises MarketError when this node cannot buy at all.
        """
        ...

    async def fits(self, order: ChatOrder) -> bool:
        """Has any executor that may run it room for the prompt and an answer? False when nobody may."""
        ...

    def placement(self, job_id: str) -> Placement | None:
        """Who ran a job of late, and why; None when it is not remembered. `job_id` is whatever a client sent."""
        ...

    def offers(self) -> tuple[Offer, ...]:
        """Every live offer heard, newest first."""
        ...
