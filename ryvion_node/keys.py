"""API keys of the local endpoint: made once, shown once, kept only as hashes in one private file.

A key is 192 random bits, so its plain SHA-256 cannot be searched: slow password hashes protect guessable
secrets, and would only cost every request time here. The command line may edit the file while the node runs;
the node reads it again whenever it changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import ValidationError

from ryvion_node.errors import EXIT_DATA, EXIT_NO_INPUT, EXIT_TEMPORARY, EXIT_USAGE, OperatorError
from ryvion_node.jurisdictions import COUNTRIES, parse_jurisdiction
from ryvion_node.ledger.spending import Allowance
from ryvion_node.paths import FileMissing, read_private_file, replace_private_file, sole_editor
from ryvion_node.preferences import ANY_OFFER, KNOWLEDGE_ASSURANCES, OWNER_KEY_ID, KnowledgeAssurance, Preferences
from ryvion_node.preferences_object import PreferencesObject, preferences_object

Scope = Literal["buyer", "read-only", "write-only", "operator"]
"""What a key may do; the endpoint's table says which scope may do what (`proxy.access`)."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

TOKEN_PREFIX: Final = "ryv_"
"""Marks our keys, so that a secret scanner finds one that leaked."""
TOKEN_BYTES: Final = 24
MAX_TOKEN_CHARACTERS: Final = 256
"""Longest text that is hashed for a comparison; ours have 36."""
MAX_KEYS: Final = 1000
MAX_NAME_CHARACTERS: Final = 64
MAX_FILE_BYTES: Final = 24 * 1024 * 1024
"""1000 keys with lists of nodes as long as they may be; without lists the file has a few hundred KB."""
MAX_LIMIT: Final = 2**53 - 1
"""Of any limit: what JSON numbers hold exactly everywhere."""
_VERSION: Final = 3
_READ_VERSIONS: Final = (1, 2, 3)
"""Keys of version 1 had no limits, those of version 2 no preferences."""


class KeysCorrupt(OperatorError):
    """The API keys in {path} cannot be read: {reason}. The file is left as it is: put a backup back or repair it;
    or move it away and create new keys with: ryvion-node keys create NAME
    """

    exit_code = EXIT_DATA


class KeyNameInvalid(OperatorError):
    """{name} cannot be the name of a key: use 1 to 64 printable characters."""

    exit_code = EXIT_USAGE


class KeyNotFound(OperatorError):
    """There is no API key with the id {key_id}. The ids are shown by: ryvion-node keys list"""

    exit_code = EXIT_NO_INPUT


class TooManyKeys(OperatorError):
    """There are {count} API keys, as many as there may be. Revoke some first: ryvion-node keys revoke ID"""

    exit_code = EXIT_USAGE


class KeysBusy(OperatorError):
    """Another program is editing the API keys in {path} just now. Try again."""

    exit_code = EXIT_TEMPORARY


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much a key may be used; None: without limit. Money in micro-credits."""

    budget_day: int | None = None
    """In one day of UTC."""
    budget_total: int | None = None
    velocity: int | None = None
    """In any 60 minutes: stops a program that runs wild long before a budget does."""
    requests_per_minute: int | None = 3_000
    """50 a second, which no person and few programs need; one in a loop is stopped."""
    jobs_at_once: int | None = 64
    """As many as the endpoint serves at once (`proxy.constants`)."""

    @property
    def allowance(self) -> Allowance:
        """The part that the ledger checks."""
        return Allowance(hour=self.velocity, day=self.budget_day, total=self.budget_total)


WITHOUT_LIMIT: Final = KeyLimits(requests_per_minute=None, jobs_at_once=None)
NO_BUDGETS: Final = KeyLimits()
NEW_KEY_LIMITS: Final = KeyLimits(velocity=5_000_000)
"""5 credits an hour, until the owner says otherwise: what a leaked or looping key can spend before somebody looks."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: everything but the key itself."""

    id: str
    """Public: shown by `keys list`, kept with the jobs it bought."""
    name: str
    scope: Scope
    jurisdictions: tuple[str, ...]
    """Where the key buys, groups expanded; empty: anywhere."""
    created_ms: int
    token_sha256: str
    limits: KeyLimits = NO_BUDGETS
    preferences: Preferences = ANY_OFFER
    """Whom the key buys from."""
    knowledge_assurance: KnowledgeAssurance = "signed"
    """Which nodes it sends passages of knowledge bases to."""


OWNER: Final = ApiKey(OWNER_KEY_ID, "the owner", "operator", (), 0, "", WITHOUT_LIMIT)
"""Whoever may read the running node's control file, which is no key but does what keys do."""


class KeyStore:
    """The keys in one file. Cheap to ask for every request."""

    def __init__(self, path: Path, *, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._path = path
        self._clock = clock
        self._stamp: tuple[int, ...] | None = None
        self._keys: tuple[ApiKey, ...] = ()

    def create(
        self,
        name: str,
        scope: Scope,
        jurisdiction: str | None = None,
        limits: KeyLimits = NEW_KEY_LIMITS,
        preferences: Preferences = ANY_OFFER,
        knowledge_assurance: KnowledgeAssurance = "signed",
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with its token, which can never be shown again.

        `jurisdiction` is text as `parse_jurisdiction` reads it; None: anywhere. Raises KeyNameInvalid,
        JurisdictionUnknown, TooManyKeys, KeysBusy, KeysCorrupt or TooOpen.
        """
        if not (0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name.strip()):
            raise KeyNameInvalid(name=repr(name[:80]))
        jurisdictions = () if jurisdiction is None else parse_jurisdiction(jurisdiction)
        token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        with self._editing() as keys:
            if len(keys) >= MAX_KEYS:
                raise TooManyKeys(count=len(keys))
            key = ApiKey(
                id=f"key-{secrets.token_hex(4)}",
                name=name,
                scope=scope,
                jurisdictions=jurisdictions,
                created_ms=self._clock(),
                token_sha256=_hash(token),
                limits=limits,
                preferences=preferences,
                knowledge_assurance=knowledge_assurance,
            )
            keys.append(key)
        return key, token

    def revoke(self, key_id: str) -> ApiKey:
        """Forget a key and return what it was; raises KeyNotFound."""
        with self._editing() as keys:
            return keys.pop(_position(keys, key_id))

    def change(
        self,
        key_id: str,
        limits: Mapping[str, int | None],
        preferences: Mapping[str, object] | None = None,
        knowledge_assurance: KnowledgeAssurance | None = None,
    ) -> ApiKey:
        """Change some of a key's limits, by their names in KeyLimits, and of its preferences, by those of the `ryvion`
        object (None: not limited any more), and whom it sends passages to; return the key. Raises KeyNotFound.
        """
        with self._editing() as keys:
            position = _position(keys, key_id)
            key = keys[position]
            wanted = PreferencesObject.model_validate(preferences_object(key.preferences) | dict(preferences or {}))
            changed = replace(
                key,
                limits=replace(key.limits, **limits),
                preferences=wanted.values(),
                knowledge_assurance=knowledge_assurance or key.knowledge_assurance,
            )
            keys[position] = changed
        return changed

    def list_keys(self) -> tuple[ApiKey, ...]:
        """All keys, oldest first; raises KeysCorrupt or TooOpen."""
        self._refresh()
        return self._keys

    def find(self, key_id: str) -> ApiKey | None:
        """The key with this id, or the owner; None when it was revoked. Raises KeysCorrupt or TooOpen."""
        self._refresh()
        return next((key for key in (OWNER, *self._keys) if key.id == key_id), None)

    def authenticate(self, token: str) -> ApiKey | None:
        """The key of this token, or None; takes as long for a nearly right token as for a wrong one.

        Raises KeysCorrupt or TooOpen when the file became unusable: then nobody gets in.
        """
        self._refresh()
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        presented = _hash(token)
        match: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(presented, key.token_sha256):
                match = key
        return match

    def _refresh(self) -> None:
        """Read the file again if it is not the one last read."""
        stamp = _stamp(self._path)
        if stamp != self._stamp or stamp is None:
            self._keys = self._read()
            self._stamp = stamp

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            data = read_private_file(self._path, MAX_FILE_BYTES)
        except FileMissing:
            return ()
        try:
            return _parse(data)
        except (ValueError, RecursionError) as exc:
            raise KeysCorrupt(path=self._path, reason=exc) from None

    @contextlib.contextmanager
    def _editing(self) -> Iterator[list[ApiKey]]:
        """The keys as a list to change; written back whole when the block ends well. One editor at a time."""
        with sole_editor(self._path, KeysBusy):
            keys = list(self._read())
            yield keys
            replace_private_file(self._path, _serialise(keys))


def _position(keys: list[ApiKey], key_id: str) -> int:
    for position, key in enumerate(keys):
        if key.id == key_id:
            return position
    raise KeyNotFound(key_id=key_id)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when the file is replaced, edited in place or opened to others; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _serialise(keys: list[ApiKey]) -> bytes:
    entries = [_to_json(key) for key in keys]
    return (json.dumps({"version": _VERSION, "keys": entries}, indent=2) + "\n").encode()


def _to_json(key: ApiKey) -> dict[str, object]:
    entry = {field.name: getattr(key, field.name) for field in fields(key)}
    return entry | {"limits": asdict(key.limits), "preferences": preferences_object(key.preferences)}


def _parse(data: bytes) -> tuple[ApiKey, ...]:
    """Raises ValueError with what is wrong (JSONDecodeError and UnicodeDecodeError are such)."""
    document = json.loads(data)
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version not in _READ_VERSIONS:
        raise ValueError(f"it is no list of keys of version {' or '.join(map(str, _READ_VERSIONS))}")
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"`keys` must be a list of at most {MAX_KEYS}")
    came_later: dict[str, object] = {}
    if version < 2:
        came_later["limits"] = asdict(NO_BUDGETS)
    if version < 3:
        came_later |= {"preferences": {}, "knowledge_assurance": "signed"}
    entries = [came_later | entry if isinstance(entry, dict) else entry for entry in entries]
    return tuple(_parse_key(entry, number) for number, entry in enumerate(entries, start=1))


def _parse_key(entry: object, number: int) -> ApiKey:
    match entry:
        case {
            "id": str(key_id),
            "name": str(name),
            "scope": str(scope),
            "jurisdictions": list(codes),
            "created_ms": int(created_ms),
            "token_sha256": str(token_sha256),
            "limits": dict(limits),
            "preferences": dict(preferences),
            "knowledge_assurance": str(assurance),
            **rest,
        } if not rest and type(created_ms) is int:
            pass
        case _:
            wanted = ", ".join(field.name for field in fields(ApiKey))
            raise ValueError(f"key {number} must have exactly {wanted}, each of its type")
    known_scope = next((known for known in SCOPES if known == scope), None)
    if known_scope is None:
        raise ValueError(f"key {number} has an unknown scope; there are {', '.join(SCOPES)}")
    known_assurance = next((known for known in KNOWLEDGE_ASSURANCES if known == assurance), None)
    if known_assurance is None:
        raise ValueError(f"knowledge_assurance of key {number} must be one of {', '.join(KNOWLEDGE_ASSURANCES)}")
    if not re.fullmatch(r"[0-9a-f]{64}", token_sha256):
        raise ValueError(f"key {number} has no SHA-256 in token_sha256")
    if not all(isinstance(code, str) and code in COUNTRIES for code in codes):
        raise ValueError(f"key {number} has an unknown country in jurisdictions")
    return ApiKey(
        key_id,
        name,
        known_scope,
        tuple(codes),
        created_ms,
        token_sha256,
        _parse_limits(limits, number),
        _parse_preferences(preferences, number),
        known_assurance,
    )


def _parse_limits(limits: dict[str, object], number: int) -> KeyLimits:
    wanted = [limit.name for limit in fields(KeyLimits)]
    if set(limits) != set(wanted):
        raise ValueError(f"the limits of key {number} must be exactly {', '.join(wanted)}")
    values: dict[str, int | None] = {}
    for name, value in limits.items():
        if value is not None and (not isinstance(value, int) or type(value) is bool or not 0 <= value <= MAX_LIMIT):
            raise ValueError(f"{name} of key {number} must be null or a whole number from 0 to {MAX_LIMIT}")
        values[name] = value
    return KeyLimits(**values)


def _parse_preferences(preferences: dict[str, object], number: int) -> Preferences:
    try:
        return PreferencesObject.model_validate(preferences).values()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "preferences"
        raise ValueError(f"{where} of key {number} is wrong: {first['msg']}") from None
