"""How an endpoint is set up; the daemon fills it from the configuration's [proxy] section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ryvion_node.proxy.constants import KEEP_ALIVE_S, MAX_BODY_BYTES, MAX_IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of one endpoint; every default is the safe one."""

    host: str = "127.0.0.1"
    port: int = 7986
    """0 takes any free one."""
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Host headers that are answered; the port that was bound is added."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may call, as `https://name:port`."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What clients ask for -> the model that is bought."""
    max_body_bytes: int = MAX_BODY_BYTES
    default_max_completion_tokens: int | None = None
    max_in_flight: int = MAX_IN_FLIGHT
    keep_alive_s: float = KEEP_ALIVE_S
