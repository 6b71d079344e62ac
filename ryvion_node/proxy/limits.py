"""How often a key may ask: requests per minute, and choices under way at once. In memory: a restart forgives.

Requests per minute are a bucket of that many, refilled evenly: a burst may use it up, after which requests come
through at the even pace. What a key may spend is the ledger's matter (`ledger.spending`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ryvion_node.proxy.access import Caller
from ryvion_node.proxy.constants import BUSY_RETRY_MS, MAX_BUCKETS
from ryvion_node.proxy.errors import ApiError, Headers

_MINUTE_S = 60.0


@dataclass(slots=True)
class Bucket:
    """Requests that may still be made, as of `at_s`."""

    requests: float
    at_s: float

    def take(self, per_minute: int, now_s: float) -> float:
        """Take one request out; returns 0, or the seconds until there is one and takes nothing."""
        self.requests = min(per_minute, self.requests + (now_s - self.at_s) * per_minute / _MINUTE_S)
        self.at_s = now_s
        if self.requests < 1:
            return (1 - self.requests) * _MINUTE_S / per_minute if per_minute else _MINUTE_S
        self.requests -= 1
        return 0.0


class Limits:
    """The limits of every key that was used lately."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._under_way: dict[str, int] = {}

    def take(self, caller: Caller, now_s: float) -> Headers:
        """Count one request of `caller` and return its x-ratelimit-* headers; raises ApiError 429.

        `now_s` is a clock that never goes back.
        """
        per_minute = caller.limits.requests_per_minute
        if per_minute is None:
            return ()
        bucket = self._buckets.pop(caller.id, None) or Bucket(per_minute, now_s)
        self._buckets[caller.id] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        wait_s = bucket.take(per_minute, now_s)
        headers = _headers(per_minute, bucket)
        if wait_s:
            problem = f"This key may make {per_minute} requests a minute; `ryvion-node keys set` can change that."
            raise ApiError("rate_limit_exceeded", problem, retry_after_ms=math.ceil(wait_s * 1000), headers=headers)
        return headers

    @contextmanager
    def under_way(self, caller: Caller, choices: int = 1) -> Iterator[None]:
        """Hold so many of the choices that `caller` may have under way; raises ApiError 429."""
        running, at_once = self._under_way.get(caller.id, 0), caller.limits.jobs_at_once
        if at_once is not None and running + choices > at_once:
            room = f"This key may have {at_once} answers under way at once; {running} are, and {choices} are asked for."
            problem = f"{room} `ryvion-node keys set` can change that."
            raise ApiError("rate_limit_exceeded", problem, retry_after_ms=BUSY_RETRY_MS)
        self._under_way[caller.id] = running + choices
        try:
            yield
        finally:
            self._under_way[caller.id] -= choices
            if not self._under_way[caller.id]:
                del self._under_way[caller.id]


def _headers(per_minute: int, bucket: Bucket) -> Headers:
    missing_s = (per_minute - bucket.requests) * _MINUTE_S / per_minute if per_minute else _MINUTE_S
    return (
        ("x-ratelimit-limit-requests", str(per_minute)),
        ("x-ratelimit-remaining-requests", str(int(bucket.requests))),
        ("x-ratelimit-reset-requests", f"{math.ceil(missing_s * 1000)}ms"),
    )
