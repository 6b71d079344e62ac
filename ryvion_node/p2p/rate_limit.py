"""How much one key may send: a token bucket each, in a bounded table."""

from __future__ import annotations

from collections import OrderedDict

from ryvion_node.p2p.constants import AUTHOR_BURST_MESSAGES, AUTHOR_MESSAGES_PER_S, MAX_AUTHORS
from ryvion_protocol.schema import NodeKey


class RateLimit:
    """Token buckets; the caller tells the time. The least recently heard key is forgotten."""

    def __init__(
        self,
        burst: int = AUTHOR_BURST_MESSAGES,
        per_s: float = AUTHOR_MESSAGES_PER_S,
        max_keys: int = MAX_AUTHORS,
    ) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._max_keys = max_keys
        self._buckets: OrderedDict[NodeKey, tuple[float, float]] = OrderedDict()
        """key -> (tokens left, when that was counted)"""

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, key: NodeKey, now_s: float) -> bool:
        """Take one token from the key's bucket; False when it is empty."""
        tokens, counted_s = self._buckets.get(key, (self._burst, now_s))
        tokens = min(self._burst, tokens + max(0.0, now_s - counted_s) * self._per_s)
        admitted = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if admitted else tokens, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return admitted
