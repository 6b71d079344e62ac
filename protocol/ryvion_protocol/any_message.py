"""All messages of the protocol as one type."""

from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Cancel,
    Delta,
    EmbedRequest,
    Error,
    Finished,
    JobOffer,
    JobRequest,
    Offer,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    Started,
    Vectors,
    Withdraw,
)

GossipMessage = Offer | Withdraw
StreamMessage = (
    QuoteRequest
    | Quote
    | Refusal
    | JobOffer
    | JobRequest
    | EmbedRequest
    | Started
    | Delta
    | Vectors
    | Finished
    | Receipt
    | AuditEnvelope
    | Acceptance
    | Cancel
    | Error
)
Message = GossipMessage | StreamMessage
