"""Every message of the protocol, as plain values (specs 02-04).

A message's body is the canonical encoding of its fields in the order they stand here. Classes with a
`SIGNER` are signed: the named field holds the key that the signature must verify under.
Units: money in micro-credits (1e-6 credit), prices in micro-credits per million tokens, times in Unix
milliseconds, durations in milliseconds, probabilities and temperatures in millionths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ryvion_protocol import constants as limits
from ryvion_protocol.schema import (
    U32,
    U53,
    U64,
    Address,
    Code,
    Country,
    Features,
    Grammar,
    Hash,
    HexJobId,
    Key,
    Label,
    ModelName,
    Nonce,
    Note,
    OptionalCode,
    OptionalHash,
    OptionalModelName,
    OptionalToolName,
    Price,
    Signature,
    Size,
    Text,
    ToolName,
)

CHAT = "chat"
EMBEDDING = "embedding"
ChunkHashes = Annotated[tuple[Hash, ...], Size(0, limits.MAX_CHUNK_HASHES)]

# --- gossip (spec 03) -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hardware:
    """What runs the models: `backend` is cpu, cuda, metal, vulkan, rocm or remote."""

    name: Label
    count: Annotated[int, Size(0, 1024)]
    memory_bytes: U53
    backend: Code


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """One model that a node serves, with its price and room."""

    name: ModelName
    digest: Hash
    quantisation: Label
    kind: Code
    context_tokens: U32
    price_in: Price
    price_out: Price
    slots_total: U32
    slots_free: U32
    millitokens_per_s: U53
    features: Features = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A node's signed advertisement, gossiped and refreshed every 30-45 s."""

    TYPE: ClassVar[str] = "offer"
    SIGNER: ClassVar[str] = "node_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_OFFER_BYTES

    network: Label
    node_key: Key
    seq: U64
    issued_ms: U53
    expires_ms: U53
    software: Label
    hardware: Hardware
    jurisdiction: Country
    location: Label
    models: Annotated[tuple[ModelOffer, ...], Size(1, limits.MAX_MODELS_PER_OFFER)]
    addresses: Annotated[tuple[Address, ...], Size(0, limits.MAX_ADDRESSES_PER_OFFER)]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Takes a node's offers out of every book at once; sent on clean shutdown or when it stops selling."""

    TYPE: ClassVar[str] = "withdraw"
    SIGNER: ClassVar[str] = "node_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_OFFER_BYTES

    network: Label
    node_key: Key
    seq: U64
    issued_ms: U53


# --- the job stream (spec 04) -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """Asks for a price and a slot. Holds no prompt: losers never see it."""

    TYPE: ClassVar[str] = "quote-request"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    network: Label
    nonce: Nonce
    model: OptionalModelName
    digest: OptionalHash
    kind: Code
    prompt_tokens_max: U32
    completion_tokens_max: U32
    jurisdictions: Annotated[tuple[Country, ...], Size(0, limits.MAX_JURISDICTIONS)]
    """Any of these will do; empty: anywhere."""
    max_price: U53
    """Most the whole job may cost, in micro-credits; 0: no limit."""
    patience_ms: U32
    """How long the requester waits for an answer."""
    features: Features = ()
    """What the job needs beyond temperature, top_p, seed and stop; an executor that lacks one refuses."""


@dataclass(frozen=True, slots=True)
class Quote:
    """The executor's binding answer: a slot is held until `expires_ms`."""

    TYPE: ClassVar[str] = "quote"
    SIGNER: ClassVar[str] = "node_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    request_hash: Hash
    node_key: Key
    model: ModelName
    digest: Hash
    context_tokens: U32
    price_in: Price
    price_out: Price
    jurisdiction: Country
    queue_depth: U32
    first_token_ms: U32
    millitokens_per_s: U53
    issued_ms: U53
    expires_ms: U53


@dataclass(frozen=True, slots=True)
class Refusal:
    """The executor does not want the job: busy, model_gone, price, credit, jurisdiction, limits or feature."""

    TYPE: ClassVar[str] = "refusal"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    code: Code
    message: Note
    retry_after_ms: U32


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: all integers, so that both sides hash the same bytes."""

    temperature_millionths: Annotated[int, Size(0, 2_000_000)]
    top_p_millionths: Annotated[int, Size(1, 1_000_000)]
    seed: U64
    top_k: U32 = 0
    """0: all tokens."""
    min_p_millionths: Annotated[int, Size(0, 1_000_000)] = 0
    presence_penalty: Annotated[int, Size(0, 4_000_000)] = 0
    """Millionths from -2 to 2, zigzag: 2n for n >= 0, -2n - 1 for n < 0 (spec 00)."""
    frequency_penalty: Annotated[int, Size(0, 4_000_000)] = 0
    """As `presence_penalty`."""
    repetition_penalty_millionths: Annotated[int, Size(10_000, 10_000_000)] = 1_000_000


@dataclass(frozen=True, slots=True)
class JobOffer:
    """The requester's signed order. The job id is the SHA-256 of this body."""

    TYPE: ClassVar[str] = "job-offer"
    SIGNER: ClassVar[str] = "requester_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    version: Annotated[int, Size(1, 2**16 - 1)]
    network: Label
    requester_key: Key
    executor_key: Key
    nonce: Nonce
    quote_hash: Hash
    model: ModelName
    digest: Hash
    request_commitment: Hash
    """SHA-256 of the body of the JobRequest or EmbedRequest (which holds a random salt)."""
    sampling: Sampling
    max_prompt_tokens: U32
    max_completion_tokens: U32
    max_price: U53
    issued_ms: U53
    expires_ms: U53


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn made; `arguments` is JSON as the model wrote it."""

    id: Label
    name: ToolName
    arguments: Text


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON Schema as text, empty for none."""

    name: ToolName
    description: Text
    parameters: Grammar


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which tools there are, and whether one must be called; `choice` is auto, none, required or named."""

    tools: Annotated[tuple[Tool, ...], Size(0, limits.MAX_TOOLS)] = ()
    choice: Code = "auto"
    name: OptionalToolName = ""
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the answer must be: `kind` is text, json_object, json_schema, regex or lark, `grammar` its definition."""

    kind: Code = "text"
    grammar: Grammar = ""


@dataclass(frozen=True, slots=True)
class LogitBias:
    """Added to a token's logit: millionths from -100 to 100, zigzag."""

    token: U32
    bias: Annotated[int, Size(0, 200_000_000)]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is system, user, assistant or tool."""

    role: Code
    content: Text
    name: Label
    tool_calls: Annotated[tuple[ToolCall, ...], Size(0, limits.MAX_TOOL_CALLS)] = ()
    """Of an assistant turn."""
    tool_call_id: Label = ""
    """Of a tool turn: which call it answers."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The prompt. A last message with role assistant is a prefix to continue."""

    TYPE: ClassVar[str] = "job-request"
    MAX_BYTES: ClassVar[int] = limits.MAX_REQUEST_BYTES

    salt: Nonce
    messages: Annotated[tuple[ChatMessage, ...], Size(1, limits.MAX_MESSAGES_PER_REQUEST)]
    stop: Annotated[tuple[Annotated[str, Size(1, 256)], ...], Size(0, limits.MAX_STOP_STRINGS)]
    chunk_hashes: ChunkHashes
    tools: ToolUse = ToolUse()
    output: OutputFormat = OutputFormat()
    logit_bias: Annotated[tuple[LogitBias, ...], Size(0, limits.MAX_LOGIT_BIAS)] = ()
    logprobs: bool = False
    top_logprobs: Annotated[int, Size(0, limits.MAX_TOP_LOGPROBS)] = 0
    """Alternatives beside each token; 0 unless `logprobs`."""
    chunk_root: OptionalHash = b""
    """Merkle root over `chunk_hashes`; empty when there are none."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """The texts of an embedding job; it comes in place of the JobRequest."""

    TYPE: ClassVar[str] = "embed-request"
    MAX_BYTES: ClassVar[int] = limits.MAX_REQUEST_BYTES

    salt: Nonce
    texts: Annotated[tuple[Annotated[str, Size(1, 256 * 1024)], ...], Size(1, limits.MAX_TEXTS_PER_REQUEST)]
    chunk_hashes: ChunkHashes = ()
    chunk_root: OptionalHash = b""


@dataclass(frozen=True, slots=True)
class Started:
    """The executor took the job and put the prompt into the context."""

    TYPE: ClassVar[str] = "started"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    job_id: HexJobId
    prompt_tokens: U32
    hardware: Hardware
    jurisdiction: Country
    location: Label
    started_ms: U53
    cached_tokens: U32 = 0
    """Of the prompt's tokens, those read for an earlier job of this requester."""


@dataclass(frozen=True, slots=True)
class CallPiece:
    """Part of a tool call: `id` and `name` come with its first piece and are empty after it."""

    index: Annotated[int, Size(0, limits.MAX_TOOL_CALLS - 1)]
    id: Label
    name: OptionalToolName
    arguments: Annotated[str, Size(0, 60 * 1024)]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token's bytes, and minus the natural logarithm of its probability in millionths."""

    piece: Annotated[bytes, Size(0, 256)]
    minus_micronats: U32


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token and the likeliest ones in its place, in falling order."""

    chosen: Alternative
    top: Annotated[tuple[Alternative, ...], Size(0, limits.MAX_TOP_LOGPROBS)]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer; the transcript hash runs over these frames."""

    TYPE: ClassVar[str] = "delta"
    MAX_BYTES: ClassVar[int] = limits.MAX_DELTA_BYTES

    seq: U32
    choice: Annotated[int, Size(0, 127)]
    text: Annotated[str, Size(0, 60 * 1024)]
    tokens: Annotated[tuple[U32, ...], Size(0, limits.MAX_TOKENS_PER_DELTA)]
    reasoning: Annotated[str, Size(0, 60 * 1024)] = ""
    """Thoughts before the answer, where the model marks them."""
    calls: Annotated[tuple[CallPiece, ...], Size(0, limits.MAX_TOOL_CALLS)] = ()
    logprobs: Annotated[tuple[TokenLogprob, ...], Size(0, limits.MAX_TOKENS_PER_DELTA)] = ()


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of texts that follow one another; the transcript hash runs over these frames."""

    TYPE: ClassVar[str] = "vectors"
    MAX_BYTES: ClassVar[int] = limits.MAX_DELTA_BYTES

    seq: U32
    first: Annotated[int, Size(0, limits.MAX_TEXTS_PER_REQUEST - 1)]
    """Index of the text that the first of them belongs to."""
    dimensions: Annotated[int, Size(1, limits.MAX_DIMENSIONS)]
    values: Annotated[bytes, Size(4, limits.MAX_VECTOR_BYTES)]
    """Little-endian binary32, `dimensions` numbers for each vector."""

    @property
    def count(self) -> int:
        """How many vectors these are."""
        return len(self.values) // (4 * self.dimensions)


@dataclass(frozen=True, slots=True)
class Finished:
    """Generation ended: stop, length, tool_calls, cancelled or error."""

    TYPE: ClassVar[str] = "finished"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    reason: Code
    prompt_tokens: U32
    completion_tokens: U32
    reasoning_tokens: U32 = 0
    """Of the completion's tokens, those of its reasoning."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The RYV1 receipt: its signature is over the receipt digest, not over this body (spec 02)."""

    TYPE: ClassVar[str] = "receipt"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    job_id: HexJobId
    node_key: Key
    result_hash: Hash
    metering_units: U53
    signature: Signature


@dataclass(frozen=True, slots=True)
class AuditEnvelope:
    """Signed facts beside the receipt: what ran, where, on which sources, when (spec 02)."""

    TYPE: ClassVar[str] = "audit-envelope"
    SIGNER: ClassVar[str] = "executor_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    job_id: HexJobId
    executor_key: Key
    requester_key: Key
    receipt_digest: Hash
    quote_hash: Hash
    transcript_hash: Hash
    status: Code
    """completed, cancelled or failed."""
    prompt_units: U32
    completion_units: U32
    model: ModelName
    model_digest: Hash
    jurisdiction: Country
    chunk_hashes: ChunkHashes
    chunk_root: OptionalHash
    started_ms: U53
    first_token_ms: U53
    """0 when no token was produced."""
    finished_ms: U53
    previous_envelope: Hash
    """SHA-256 of the last envelope body between this pair; zeros for the first."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The requester's signed verdict on an envelope."""

    TYPE: ClassVar[str] = "acceptance"
    SIGNER: ClassVar[str] = "requester_key"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    job_id: HexJobId
    requester_key: Key
    envelope_hash: Hash
    agreed_units: U53
    accepted: bool
    reason: OptionalCode
    """Empty when accepted; else the first check that failed."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The requester wants no more; generation stops within one decode step."""

    TYPE: ClassVar[str] = "cancel"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    reason: Code


@dataclass(frozen=True, slots=True)
class Error:
    """Ends a stream with a reason; `status` 2xx refused, 3xx later, 4xx the peer's fault, 5xx ours."""

    TYPE: ClassVar[str] = "error"
    MAX_BYTES: ClassVar[int] = limits.MAX_CONTROL_BYTES

    status: Annotated[int, Size(200, 599)]
    code: Code
    message: Note
    retry_after_ms: U32
