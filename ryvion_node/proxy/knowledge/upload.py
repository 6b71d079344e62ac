"""Files that come as multipart/form-data (RFC 7578): read piece by piece, one of them in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ryvion_node.knowledge.constants import MAX_FILE_BYTES
from ryvion_node.proxy.constants import MAX_PARTS, MAX_UPLOAD_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.validation import invalid_value, missing

FIELD = "file"
"""Name of the parts that hold files; others are passed over."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file as it came."""

    filename: str
    data: bytes


async def uploaded_files(exchange: Exchange) -> AsyncGenerator[UploadedFile, None]:
    """The files of a request, each as soon as it is whole; raises ApiError, ClientGone."""
    form = Form(exchange.headers.get("content-type", ""))
    if exchange.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError("unsupported_media_type", "Send the body without Content-Encoding.")
    declared = exchange.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_UPLOAD_BYTES:
        raise _too_large("The request", MAX_UPLOAD_BYTES)
    taken = 0
    while (piece := await exchange.piece()) is not None:
        problem: ApiError | None = None
        try:
            form.feed(piece)
        except ApiError as error:
            problem = error
        while form.files:  # those before the one that is refused are taken, wherever the pieces were cut
            taken += 1
            yield form.files.popleft()
        if problem is not None:
            raise problem
    form.finish()
    if not taken:
        raise missing(FIELD)


class Form:
    """Bytes in, files out: no input or output of its own."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
            problem = "Send the files as multipart/form-data: curl -F file=@PATH."
            raise ApiError("unsupported_media_type", problem)
        self.files: deque[UploadedFile] = deque()
        """Those that are whole and were not taken out."""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._whole,
            },
        )
        self._received = 0
        self._parts = 0
        self._is_whole = False
        self._name, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._filename: str | None = None
        """Of the file that is being read; None: this part is passed over."""
        self._file = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in a piece of the body; raises ApiError."""
        self._received += len(data)
        if self._received > MAX_UPLOAD_BYTES:
            raise _too_large("The request", MAX_UPLOAD_BYTES)
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise _malformed(str(exc)) from None

    def finish(self) -> None:
        """The body has ended; raises ApiError when the form has not."""
        if not self._is_whole:
            raise _malformed("it ends in the middle")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _malformed(f"it has more than {MAX_PARTS} parts")
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._filename = None
        if options.get(b"name") != FIELD.encode():
            return
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        if not filename:
            raise invalid_value(FIELD, "has no filename, by which the document would be known")
        self._filename = filename

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is None:
            return
        self._file += memoryview(data)[start:end]
        if len(self._file) > MAX_FILE_BYTES:
            raise _too_large("A file", MAX_FILE_BYTES)

    def _end(self) -> None:
        if self._filename is not None:
            self.files.append(UploadedFile(self._filename, bytes(self._file)))
        self._file = bytearray()

    def _whole(self) -> None:
        self._is_whole = True


def _too_large(what: str, limit: int) -> ApiError:
    return ApiError("request_too_large", f"{what} is larger than {limit} bytes.", param=FIELD)


def _malformed(problem: str) -> ApiError:
    return ApiError("invalid_value", f"The body is no multipart/form-data: {problem}.", param=FIELD)
