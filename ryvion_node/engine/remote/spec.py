"""What the owner says about a model that another engine serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from ryvion_node.engine.interface import Feature
from ryvion_node.engine.remote.constants import MAX_URL_CHARS

Flavour = Literal["openai", "llama-server", "llama-cpp-python", "vllm", "sglang", "ollama"]
"""Whose dialect a server speaks. `openai` is the common ground of all."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is; `root` is the path in front of /v1, without a slash at its end."""

    scheme: str
    host: str
    port: int
    root: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.root}"


def parse_url(url: str) -> ServerAddress:
    """`http://host:port`, with or without a path and /v1 at its end. Raises ValueError, which never repeats the URL."""
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is printable ASCII without spaces, at most 2048 characters")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("a URL of a server begins with http:// or https:// and names a host")
    if ":" not in parts.hostname and not all(
        0 < len(part) < 64 for part in parts.hostname.removesuffix(".").split(".")
    ):
        raise ValueError("the host of a URL has 1 to 63 characters between its dots")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a key does not belong in the URL; use key_file or key_env")
    if parts.query or parts.fragment:
        raise ValueError("a URL of a server has no ? and no # part")
    root = parts.path.rstrip("/")
    root = root[: -len("/v1")] if root.endswith("/v1") else root
    return ServerAddress(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], root.rstrip("/"))


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """One model behind a URL. Nothing that a peer sends can name a server, a path or a model of it."""

    name: str
    """Buyers ask for it under this name."""
    url: str
    served_as: str = ""
    """The model's id at the server; empty: `name` if the server has it, else its only model."""
    key_file: Path | None = None
    """A private file whose first line is the server's key."""
    key_env: str = ""
    """Or the environment variable that holds it."""
    flavour: Flavour | Literal["auto"] = "auto"
    context_tokens: int | None = None
    """Per job; None: what the server says."""
    slots: int = 4
    """Jobs at once."""
    quantisation: str = "unknown"
    digest: bytes | None = None
    """SHA-256 of the weights' file as the owner states it; None: 32 zero bytes are offered."""
    tokenizer: Path | None = None
    """A GGUF, or a header cut from one, that prompts and answers are counted with."""
    features: tuple[Feature, ...] | None = None
    """What the server can do, in the owner's words; None: what its dialect is known for."""
