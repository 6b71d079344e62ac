"""The node's one Ed25519 key: its peer id on the network and the key that signs its receipts (spec 01)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ryvion_node.errors import EXIT_DATA, OperatorError
from ryvion_node.paths import FileMissing, create_private_file, make_private_folder, read_private_file
from ryvion_protocol.schema import NodeKey
from ryvion_protocol.signing import SigningIdentity

SEED_BYTES = 32


class IdentityCorrupt(OperatorError):
    """The identity file {path} is not a 32-byte seed ({found}). Put a backup back; or, to start over as a new
    node that nobody knows, move the file away.
    """

    exit_code = EXIT_DATA


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The key in the two forms it is needed: `signing` for messages, `seed` for the network's own handshake."""

    seed: bytes = field(repr=False)
    signing: SigningIdentity = field(repr=False)

    @property
    def public_key(self) -> NodeKey:
        return self.signing.public_key


def load_or_create_identity(path: Path) -> NodeIdentity:
    """Read the key at `path`, or make one; raises TooOpen, IdentityCorrupt or CannotUse."""
    make_private_folder(path.parent)
    try:
        return load_identity(path)
    except FileMissing:
        create_private_file(path, secrets.token_bytes(SEED_BYTES))
        return load_identity(path)  # what another process created first wins


def load_identity(path: Path) -> NodeIdentity:
    """Read the key at `path`; raises FileMissing, TooOpen, IdentityCorrupt or CannotUse."""
    seed = read_private_file(path, limit_bytes=4096)
    if len(seed) != SEED_BYTES:
        raise IdentityCorrupt(path=path, found=f"it has {len(seed)} bytes")
    if seed == bytes(SEED_BYTES):
        raise IdentityCorrupt(path=path, found="it is all zeros, as after a crash of the file system")
    return identity_from_seed(seed)


def identity_from_seed(seed: bytes) -> NodeIdentity:
    """Wrap a 32-byte seed that comes from elsewhere, a test for instance."""
    return NodeIdentity(seed=seed, signing=SigningIdentity(seed))
