"""Vectors of spec 00: frames, packets, canonical bodies. `python -m specs.generate_encoding [--check]`."""

from __future__ import annotations

from collections.abc import Sequence

from ryvion_protocol.codec import pack_value
from ryvion_protocol.constants import MAX_CONTROL_BYTES
from ryvion_protocol.framing import frame
from ryvion_protocol.messages import Delta, Error, QuoteRequest
from ryvion_protocol.packet import pack
from specs.samples import CANCEL, ERROR, QUOTE_REQUEST, REFUSAL, sample_job
from specs.vector_form import JsonValue, Vector, main, plain

DELTA = Delta(seq=3, choice=0, text="Grüße", tokens=(1, 200))


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_frames(), *_packets(), *_not_canonical(), *_kinds(), *_fields(), *_sizes(), _zigzag()]


def _frames() -> list[Vector]:
    cancel = frame(pack(CANCEL).raw)
    two = cancel + frame(pack(ERROR).raw)
    payloads: list[JsonValue] = [pack(CANCEL).raw.hex(), pack(ERROR).raw.hex()]
    limit: dict[str, JsonValue] = {"max_bytes": MAX_CONTROL_BYTES}

    def broken(name: str, requirement: str, comment: str, data: bytes, code: str) -> Vector:
        return Vector(name, (requirement,), comment, "frames", data, (), limit, "framing-error", code)

    return [
        Vector("frames-one", ("R-00-1",), "One frame.", "frames", cancel, (), limit, gives={"payloads": payloads[:1]}),
        Vector("frames-two", ("R-00-1",), "Two in a row.", "frames", two, (), limit, gives={"payloads": payloads}),
        Vector(
            "frames-none", ("R-00-3",), "The stream ends at once.", "frames", b"", (), limit, gives={"payloads": []}
        ),
        broken("frame-empty", "R-00-2", "A length of 0.", bytes(4), "frame_empty"),
        broken(
            "frame-too-large",
            "R-00-2",
            "A header above the limit is refused before any of its payload came.",
            (MAX_CONTROL_BYTES + 1).to_bytes(4, "big"),
            "frame_too_large",
        ),
        broken("frame-cut-header", "R-00-3", "The stream ends inside a header.", cancel[:2], "frame_truncated"),
        broken("frame-cut-payload", "R-00-3", "The stream ends inside a payload.", cancel[:-1], "frame_truncated"),
    ]


def _packets() -> list[Vector]:
    job = sample_job()
    messages = (*job.packets, pack(REFUSAL), pack(CANCEL), pack(ERROR))
    seen: set[str] = set()
    out = []
    for packet in messages:
        name = packet.message.TYPE
        if name in seen:
            continue
        seen.add(name)
        gives = {"type": name, "hash": packet.hash.hex(), "fields": plain(packet.message)}
        keys = tuple(
            who
            for who, field in (("executor", ("node_key", "executor_key")), ("requester", ("requester_key",)))
            if any(hasattr(packet.message, part) for part in field)
        )
        out.append(
            Vector(
                f"packet-{name}",
                ("R-00-4", "R-00-9", "R-00-13"),
                f"A {type(packet.message).__name__} of the sample job, field by field.",
                "packet",
                packet.raw,
                keys,
                {"allowed": [name]},
                gives=gives,
            )
        )
    raw = pack(CANCEL).raw
    return [
        *out,
        _packet("packet-not-allowed", "R-00-12", "A Cancel where only an Error may come.", raw, "state", ["error"]),
        _packet(
            "packet-unknown-type",
            "R-00-12",
            "A type that does not exist is as little allowed as one that may not come now.",
            pack_value(("bribe", b"\x90", b"")),
            "state",
            ["cancel"],
        ),
        _packet("packet-two-parts", "R-00-4", "No signature part.", pack_value(("cancel", b"\x90")), "schema"),
        _packet("packet-type-bytes", "R-00-4", "Type as bytes.", pack_value((b"cancel", b"\x90", b"")), "schema"),
        _packet("packet-no-array", "R-00-4", "A string alone.", pack_value("cancel"), "schema"),
        _packet("packet-trailing", "R-00-5", "One byte follows.", raw + b"\0", "encoding"),
        _packet("packet-cut", "R-00-5", "The last byte is missing.", raw[:-1], "encoding"),
        _packet(
            "packet-first-failure",
            "R-00-16",
            "The body is not canonical and a signature is there that should not be: the encoding comes first.",
            pack_value(("cancel", b"\x91\xd9\x04gone", bytes(64))),
            "encoding",
        ),
    ]


def _not_canonical() -> list[Vector]:
    """The same Delta with one longer encoding each."""
    good = pack(DELTA).body
    three, zero, text, tokens, rest = b"\x03", b"\x00", b"\xa7Gr\xc3\xbc\xc3\x9fe", b"\x92\x01\xcc\xc8", b"\xa0\x90\x90"
    tail = zero + text + tokens + rest
    assert good == b"\x97" + three + tail
    variants = {
        "array-16": ("array 16", b"\xdc\x00\x07" + good[1:]),
        "uint-8": ("3 as uint 8", b"\x97\xcc\x03" + tail),
        "uint-64": ("3 as uint 64", b"\x97\xcf" + bytes(7) + b"\x03" + tail),
        "int-8": ("3 as int 8", b"\x97\xd0\x03" + tail),
        "str-8": ("a short string as str 8", b"\x97" + three + zero + b"\xd9\x07" + text[1:] + tokens + rest),
        "uint-16": ("200 as uint 16", b"\x97" + three + zero + text + b"\x92\x01\xcd\x00\xc8" + rest),
        "trailing": ("a byte after the array", good + b"\x00"),
        "cut": ("an array that ends early", good[:-1]),
        "empty": ("no byte at all", b""),
        "reserved": ("the reserved byte c1", b"\xc1"),
    }
    return [
        _body(f"body-{name}", "R-00-5", f"Not the shortest form: {what}.", body, "encoding")
        for name, (what, body) in variants.items()
    ]


def _kinds() -> list[Vector]:
    """A Delta with a value of a kind that the protocol does not use."""
    rest = b"\x90\xa0\x90\x90"
    tail = b"\x00\xa0" + rest
    variants = {
        "nil": ("R-00-6", b"\x97\xc0" + tail),
        "negative": ("R-00-6", b"\x97\xff" + tail),
        "float": ("R-00-6", b"\x97\xcb" + bytes(8) + tail),
        "map": ("R-00-6", b"\x97\x80" + tail),
        "map-filled": ("R-00-6", b"\x97\x81\xa1a\x01" + tail),
        "ext": ("R-00-6", b"\x97\xd4\x05\x00" + tail),
        "timestamp": ("R-00-6", b"\x97\xd6\xff\x00\x00\x00\x01" + tail),
        "nested": ("R-00-6", b"\x91" * 8 + b"\x00"),
        "nested-deep": ("R-00-6", b"\x91" * 1500 + b"\x00"),
        "surrogate": ("R-00-7", b"\x97\x00\x00\xa3\xed\xa0\x80" + rest),
        "overlong": ("R-00-7", b"\x97\x00\x00\xa2\xc0\x80" + rest),
        "utf8-cut": ("R-00-7", b"\x97\x00\x00\xa1\xc3" + rest),
    }
    return [
        _body(f"kind-{name}", requirement, f"Refused as an encoding: {name}.", body, "encoding")
        for name, (requirement, body) in variants.items()
    ]


def _fields() -> list[Vector]:
    rest: tuple[object, ...] = ("", (), ())
    variants = {
        "bool-for-int": ("R-00-8", "true is not 1", (True, 0, "", (), *rest)),
        "bytes-for-str": ("R-00-8", "bytes are no string", (0, 0, b"", (), *rest)),
        "str-for-array": ("R-00-8", "a string is no array", (0, 0, "", "", *rest)),
        "int-for-bytes": ("R-00-8", "an integer in a token list of strings", (0, 0, "", ("1",), *rest)),
        "too-few": ("R-00-9", "six fields", (0, 0, "", (), "", ())),
        "too-many": ("R-00-9", "eight fields", (0, 0, "", (), *rest, 0)),
        "out-of-range": ("R-00-9", "choice 128", (0, 128, "", (), *rest)),
        "too-wide": ("R-00-9", "a token id of 2^32", (0, 0, "", (2**32,), *rest)),
        "too-many-items": ("R-00-9", "4097 token ids", (0, 0, "", (0,) * 4097, *rest)),
    }
    deltas = [
        _body(f"field-{name}", requirement, f"{comment[0].upper()}{comment[1:]}.", pack_value(fields), "schema")
        for name, (requirement, comment, fields) in variants.items()
    ]
    request = QUOTE_REQUEST
    short_digest = _mutated(request, 3, bytes(31))
    error = (500, "worker_crashed")
    return [
        *deltas,
        _packet(
            "field-short-digest",
            "R-00-15",
            "31 bytes, where 0 or 32 are legal.",
            short_digest,
            "schema",
            ["quote-request"],
        ),
        _packet(
            "field-lowercase-country", "R-00-10", "ca.", _mutated(request, 7, ("ca",)), "schema", ["quote-request"]
        ),
        _packet(
            "field-newline",
            "R-00-10",
            "A pattern holds for the whole string.",
            _mutated(request, 4, "chat\n"),
            "schema",
            ["quote-request"],
        ),
        _packet(
            "field-utf8-length",
            "R-00-10",
            "257 two-byte characters are 514 bytes.",
            _error((*error, "é" * 257, 0)),
            "schema",
            ["error"],
        ),
        _packet(
            "field-control",
            "R-00-17",
            "A terminal escape in a sentence.",
            _error((*error, "\x1b[2J", 0)),
            "schema",
            ["error"],
        ),
        _packet(
            "field-bidi",
            "R-00-17",
            "A text-direction override.",
            _error((*error, "\u202eevil", 0)),
            "schema",
            ["error"],
        ),
    ]


def _sizes() -> list[Vector]:
    long_text = "x" * (MAX_CONTROL_BYTES + 1)
    oversize_error = pack_value(("error", pack_value((500, "a", long_text, 0)), b""))
    return [
        _packet(
            "size-of-class",
            "R-00-11",
            "An Error may have 16 KiB, even where a Delta of 64 KiB may come.",
            oversize_error,
            "framing",
            ["delta", "error"],
        ),
    ]


def _zigzag() -> Vector:
    numbers = (0, -1, 1, -2, 2, -250_000, 2_000_000, -100_000_000, 100_000_000)
    given: dict[str, JsonValue] = {"numbers": list(numbers)}
    gives: dict[str, JsonValue] = {"codes": [0, 1, 2, 3, 4, 499_999, 4_000_000, 199_999_999, 200_000_000]}
    return Vector("zigzag", ("R-00-18",), "Signed numbers as unsigned ones.", "zigzag", b"", (), given, gives=gives)


_EXPECT = {
    "state": ("state-error", "unexpected_message"),
    "schema": ("schema-error", "schema_invalid"),
    "encoding": ("encoding-non-canonical", "encoding_non_canonical"),
    "framing": ("framing-error", "frame_too_large"),
}


def _packet(
    name: str, requirement: str, comment: str, raw: bytes, layer: str, allowed: Sequence[str] = ("cancel",)
) -> Vector:
    expect, code = _EXPECT[layer]
    return Vector(name, (requirement,), comment, "packet", raw, (), {"allowed": list(allowed)}, expect, code)


def _body(name: str, requirement: str, comment: str, body: bytes, layer: str) -> Vector:
    return _packet(name, requirement, comment, pack_value((Delta.TYPE, body, b"")), layer, ["delta"])


def _error(fields: tuple[object, ...]) -> bytes:
    return pack_value((Error.TYPE, pack_value(fields), b""))


def _mutated(message: QuoteRequest, index: int, value: object) -> bytes:
    fields: list[object] = [getattr(message, name) for name in type(message).__slots__]
    fields[index] = value
    return pack_value((message.TYPE, pack_value(tuple(fields)), b""))


if __name__ == "__main__":
    main("00", "encoding", vectors)
