"""Where a server's key comes from. It is read once, kept out of every text, and sent to that server only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ryvion_node.engine.remote.constants import MAX_KEY_BYTES
from ryvion_node.engine.remote.spec import RemoteSpec
from ryvion_node.errors import EXIT_CONFIG, OperatorError
from ryvion_node.paths import FileMissing, read_private_file


class KeyMissing(OperatorError):
    """The key for the server of {model} is not there: {where}. Put the key there, or take the setting away when the
    server wants none.
    """

    exit_code = EXIT_CONFIG


def load_key(spec: RemoteSpec, environ: Mapping[str, str] | None = None) -> str:
    """The key, empty when the server wants none. Raises KeyMissing, TooOpen or CannotUse."""
    if spec.key_file is not None:
        return _usable(_from_file(spec, spec.key_file), spec, f"{spec.key_file} holds none")
    if spec.key_env:
        value = (os.environ if environ is None else environ).get(spec.key_env, "")
        return _usable(value, spec, f"the environment variable {spec.key_env} holds none")
    return ""


def _from_file(spec: RemoteSpec, path: Path) -> str:
    try:
        data = read_private_file(path, MAX_KEY_BYTES)
    except FileMissing:
        raise KeyMissing(model=spec.name, where=f"there is no file {path}") from None
    return data.decode("ascii", "replace")


def _usable(text: str, spec: RemoteSpec, missing: str) -> str:
    """A key travels in a header, so it is one line of visible ASCII."""
    key = text.strip().partition("\n")[0].strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise KeyMissing(model=spec.name, where=missing)
    return key
