"""The hub that models are fetched from, through huggingface_hub: what a file is, and its bytes from anywhere on.

`hf_hub_download` itself is not used, because it throws a partial file away whenever it stops (huggingface_hub 2.4,
`_download_to_tmp_and_move`): nine gigabytes would start again after each Ctrl-C. This stands on the parts that it is
made of: where a file is, its metadata, the shared client with the owner's access token.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ryvion_node import __version__
from ryvion_node.errors import EXIT_NO_INPUT, EXIT_TEMPORARY, EXIT_UNAVAILABLE, OperatorError
from ryvion_node.library.constants import (
    MAX_FRUITLESS_TRIES,
    METADATA_TIMEOUT_S,
    READ_BYTES,
    RETRY_DELAY_S,
    SILENCE_TIMEOUT_S,
)


class HubMissing(OperatorError):
    """Models are fetched with huggingface_hub, which is not installed. Install it with the executor extra:
    pip install "ryvion-node[executor]"
    """

    exit_code = EXIT_UNAVAILABLE


# Else it asks the hub how to call the program that runs it, and tells the hub about that and about installed packages.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

try:
    import httpx2
    from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not in its __all__
except ImportError as exc:
    raise HubMissing from exc

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CLOSED: Final = frozenset({401, 403})


class SourceHasNoFile(OperatorError):
    """There is no {file} in {source}, or it is not public. If it moved, fetch it from its new place yourself and name
    the file with: ryvion-node models add FILE
    """

    exit_code = EXIT_NO_INPUT


class SourceClosed(OperatorError):
    """{source} does not give {file} to everybody. Accept its terms on its page at the hub, make an access token there,
    and put the token into the environment variable HF_TOKEN.
    """

    exit_code = EXIT_NO_INPUT


class SourceUnreachable(OperatorError):
    """Cannot fetch {file} from {source}: {reason}. Check the network and try again; what came before is kept."""

    exit_code = EXIT_TEMPORARY


class TransferBroken(OperatorError):
    """The transfer of {file} from {source} broke {tries} times in a row at byte {position} ({reason}). What came is
    kept: the same command goes on from there.
    """

    exit_code = EXIT_TEMPORARY


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at the hub, as one revision has it."""

    source: str
    file: str
    url: str
    """Pinned to the revision, so that its bytes cannot change between two requests."""
    revision: str
    etag: str
    size_bytes: int
    sha256: bytes | None
    """What the hub says; nobody has checked it."""


class Hub:
    """Describes files and streams them. Blocking."""

    def __init__(self, endpoint: str | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """`endpoint` None: the public hub, or what HF_ENDPOINT says."""
        self._endpoint = endpoint
        self._sleep = sleep
        self._headers = build_hf_headers(library_name="ryvion-node", library_version=__version__)

    def describe(self, source: str, file: str) -> RemoteFile:
        """What the hub says about a file; raises SourceHasNoFile, SourceClosed or SourceUnreachable."""
        url = hf_hub_url(source, file, endpoint=self._endpoint)
        try:
            metadata = get_hf_file_metadata(
                url, timeout=METADATA_TIMEOUT_S, headers=self._headers, endpoint=self._endpoint
            )
        except GatedRepoError as exc:
            raise SourceClosed(source=source, file=file) from exc
        except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError) as exc:
            raise SourceHasNoFile(source=source, file=file) from exc
        except HfHubHTTPError as exc:
            raise _refusal(source, file, exc.response.status_code) from exc
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as exc:
            raise SourceUnreachable(source=source, file=file, reason=_reason(exc)) from exc
        if metadata.commit_hash is None or not _COMMIT.fullmatch(metadata.commit_hash) or not metadata.etag:
            raise SourceUnreachable(source=source, file=file, reason="what answers is no model hub")
        if metadata.size is None or metadata.size <= 0:
            raise SourceUnreachable(source=source, file=file, reason="the hub does not say how large it is")
        return RemoteFile(
            source=source,
            file=file,
            url=hf_hub_url(source, file, revision=metadata.commit_hash, endpoint=self._endpoint),
            revision=metadata.commit_hash,
            etag=metadata.etag,
            size_bytes=metadata.size,
            sha256=bytes.fromhex(metadata.etag) if _SHA256.fullmatch(metadata.etag) else None,
        )

    def stream(self, remote: RemoteFile, start: int, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (None: all), over as many connections as it takes.

        Raises TransferBroken when too many tries in a row bring nothing, SourceHasNoFile, SourceClosed, SourceUnreachable.
        """
        position, end = start, remote.size_bytes if end is None else min(end, remote.size_bytes)
        fruitless = 0
        while position < end:
            before, reason = position, "it ended early"
            try:
                for chunk in self._attempt(remote, position, end):
                    position += len(chunk)
                    yield chunk
            except _Broken as exc:
                reason = str(exc)
            fruitless = fruitless + 1 if position == before else 0
            if fruitless == MAX_FRUITLESS_TRIES:
                raise TransferBroken(
                    source=remote.source, file=remote.file, tries=fruitless, position=position, reason=reason
                )
            if position < end:
                self._sleep(RETRY_DELAY_S * max(1, fruitless))

    def _attempt(self, remote: RemoteFile, position: int, end: int) -> Iterator[bytes]:
        """What one request brings of the range. Raises _Broken, or an operator's error."""
        headers = {**self._headers, "Range": f"bytes={position}-{end - 1}", "Accept-Encoding": "identity"}
        timeout = httpx2.Timeout(SILENCE_TIMEOUT_S)
        try:
            with get_session().stream("GET", remote.url, headers=headers, timeout=timeout) as response:
                skip = _bytes_before(response, remote, position)
                left = end - position
                for chunk in response.iter_raw(READ_BYTES):
                    wanted = chunk[skip : skip + left]
                    skip -= min(skip, len(chunk))
                    left -= len(wanted)
                    if wanted:
                        yield wanted
                    if not left:
                        return
        except (httpx2.HTTPError, OfflineModeIsEnabled) as exc:
            raise _Broken(_reason(exc)) from exc


class _Broken(Exception):
    """One request failed in a way that may pass."""


def _bytes_before(response: httpx2.Response, remote: RemoteFile, position: int) -> int:
    """How many bytes of the answer come before `position`: none, or all of them where ranges are not known."""
    status = response.status_code
    if status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
        return 0
    if status == 200:
        return position
    if status in _TRANSIENT or status == 206:
        raise _Broken(f"it answered {status}")
    raise _refusal(remote.source, remote.file, status)


def _refusal(source: str, file: str, status: int) -> OperatorError:
    if status in _CLOSED:
        return SourceClosed(source=source, file=file)
    if status == 404:
        return SourceHasNoFile(source=source, file=file)
    return SourceUnreachable(source=source, file=file, reason=f"the hub answered {status}")


def _reason(exc: Exception) -> str:
    text = str(exc).split("\n")[0].strip()
    return text[:200] or type(exc).__name__
