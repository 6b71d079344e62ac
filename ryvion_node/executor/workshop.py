"""What sold jobs share and what each was ordered with: the node's parts, the chains of envelopes, the terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ryvion_node.engine.interface import Engine
from ryvion_node.executor.constants import MAX_CHAINS
from ryvion_node.executor.tally import NOBODY, SalesTally
from ryvion_node.ledger.interface import Ledger
from ryvion_protocol.messages import Hardware, JobOffer, Quote
from ryvion_protocol.packet import Packet
from ryvion_protocol.schema import JobId, NodeKey
from ryvion_protocol.signing import SigningIdentity


class Chains:
    """The last envelope between us and each requester, so that envelopes form a chain per pair (spec 02)."""

    def __init__(self, ledger: Ledger, own_key: NodeKey) -> None:
        self._ledger = ledger
        self._own_key = own_key
        self._last: dict[NodeKey, bytes] = {}

    async def load(self, requester: NodeKey) -> None:
        """Read the chain's end from disk once, before the job needs it."""
        if requester not in self._last:
            last = await self._ledger.last_envelope_hash(self._own_key, requester)
            self._last.setdefault(requester, last)

    def last(self, requester: NodeKey) -> bytes:
        """Hash of the chain's end; `load` has been called."""
        return self._last[requester]

    def forget(self, requester: NodeKey) -> None:
        """Read the chain's end from disk again: what was to extend it was not written."""
        self._last.pop(requester, None)

    def extend(self, requester: NodeKey, envelope: Packet) -> None:
        """Make `envelope` the chain's end. No await may lie between `last`, this, and queueing it for the ledger."""
        self._last.pop(requester, None)
        self._last[requester] = envelope.hash
        if len(self._last) > MAX_CHAINS:
            self.forget(next(iter(self._last)))  # the one that was extended longest ago, so it is on disk


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every job needs from its node."""

    identity: SigningIdentity
    engine: Engine
    ledger: Ledger
    chains: Chains
    hardware: Hardware
    location: str
    network: str
    clock_ms: Callable[[], int]
    tally: SalesTally = NOBODY


@dataclass(frozen=True, slots=True)
class SoldTerms:
    """What the requester ordered."""

    job_id: JobId
    order: Packet
    offer: JobOffer
    chunk_hashes: tuple[bytes, ...]
    quote_packet: Packet
    quote: Quote
