"""Grammars: which tokens may come next so that an answer keeps to a JSON Schema, an expression or a Lark grammar.

llguidance does the work, in threads of its own: beside llama.cpp's step rather than after it, so that a grammar that is
costly to follow slows its own job only. Control tokens are named in Lark as `<|name|>`; a schema never allows one.
"""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark

from ryvion_node.engine import constants as limits
from ryvion_node.engine.wire import WireOutput
from ryvion_node.engine.worker.choosing import MaskFailed
from ryvion_node.engine.worker.closing import closed

JSON_OPTIONS: Final = {
    "item_separator": ",",
    "key_separator": ":",
    # Bounded, since small models like to fill a page with it.
    "whitespace_pattern": r" |\n[ \t]{0,32}",
    "coerce_one_of": False,
    "lenient": False,
}
_PLAIN: Final = '%llguidance {"no_forcing": true}\n'
"""Allow every token that fits, not only the canonical one: what is allowed must not depend on the library (spec 05)."""
_DATA: Final = frozenset(("const", "enum", "default", "examples"))
"""Schema keywords that hold values, not schemas."""
_EXCERPT: Final = re.compile(r"\n +\d+ \| ")
_IN_SCHEMA: Final = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
"""A place in our wrapping of the schema, which says nothing to its author."""
_UNSUPPORTED: Final = "Unimplemented keys: "
_RULE: Final = re.compile(r"[\w\])}]\s*:|\|")
"""Also finds a few other things; in JSON a quotation mark comes before the colon."""
_NOTHING: Final = "the grammar allows no token here"
_Mask = npt.NDArray[np.bool_]


class GrammarInvalid(Exception):
    """The grammar is malformed, too large, too deep or unsupported; the message quotes it, so it is for its sender."""


class Spelling(Protocol):
    """What grammars ask of a vocabulary."""

    size: int

    def pieces(self) -> list[bytes]: ...

    def name(self, token: int) -> str: ...

    def ends(self, token: int) -> bool: ...

    def tokenise(self, text: str) -> list[int]: ...


class Grammars:
    """Compiles grammars for one vocabulary. Making it takes up to a second for the largest ones."""

    def __init__(self, vocabulary: Spelling) -> None:
        ends = [token for token in range(vocabulary.size) if vocabulary.ends(token)]
        self._size = vocabulary.size
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Spelled(vocabulary, ends)), eos_token=ends) if ends else None
        self._limits = LLParserLimits(
            max_grammar_size=limits.MAX_GRAMMAR_SYMBOLS,
            initial_lexer_fuel=limits.MAX_LEXER_FUEL,
            verbose_errors=False,
        )
        # Long chains of rules are followed by recursion.
        before = threading.stack_size(limits.GRAMMAR_STACK_BYTES)
        try:
            self._compiler = _started(1, "compile")
            self._threads = _started(limits.GRAMMAR_THREADS, "grammar")
        finally:
            threading.stack_size(before)

    def compile(self, output: WireOutput) -> GrammarMask:
        """The mask at the answer's beginning. Raises GrammarInvalid."""
        kind, text = output
        if self._tokenizer is None:
            raise GrammarInvalid("this model has no token that ends an answer, so it cannot follow a grammar")
        source = _lark(kind, text)
        compiling = self._compiler.submit(self._compiled, self._tokenizer, source)
        try:
            return compiling.result(limits.GRAMMAR_COMPILE_S)
        except TimeoutError as exc:
            # Where it still waits for the one before it, nobody needs it any more.
            compiling.cancel()
            raise GrammarInvalid("it takes too long to compile: make it smaller") from exc

    def _compiled(self, tokenizer: LLTokenizer, source: str) -> GrammarMask:
        matcher = LLMatcher(tokenizer, source, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise GrammarInvalid(_words(matcher))
        mask = GrammarMask(matcher, self._size, self._threads)
        try:
            mask.allowed()
        except MaskFailed as exc:
            raise GrammarInvalid(str(exc)) from exc
        return mask


class GrammarMask:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int, threads: ThreadPoolExecutor) -> None:
        """Computes the first mask here and now."""
        self._matcher = matcher
        self._size = size
        self._threads = threads
        self._next: Future[_Mask] = Future()
        try:
            self._next.set_result(self._computed())
        except MaskFailed as exc:
            self._next.set_exception(exc)

    def ready(self, within_s: float) -> bool:
        """Does `allowed` answer at once, now or after waiting so long at most?"""
        return self._next.done() or (within_s > 0 and bool(wait((self._next,), within_s).done))

    def allowed(self) -> _Mask:
        """One element per token. Raises MaskFailed."""
        return self._next.result()

    def take(self, token: int) -> None:
        """Go on with this token; what is allowed after it is worked out in the background. Raises MaskFailed."""
        # A matcher belongs to one thread at a time.
        self.allowed()
        self._next = self._threads.submit(self._after, token)

    def _after(self, token: int) -> _Mask:
        if not self._matcher.consume_token(token):
            raise MaskFailed(_words(self._matcher))
        return self._computed()

    def _computed(self) -> _Mask:
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise MaskFailed(_words(self._matcher))
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=self._size, bitorder="little").view(np.bool_)
        if not mask.any():
            raise MaskFailed(_NOTHING)
        return mask


def _started(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads run already: they keep the stack size of this moment."""
    pool = ThreadPoolExecutor(threads, name)
    started = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    return pool


class _Spelled:
    """A vocabulary as llguidance reads it: control tokens are marked by the byte FF."""

    def __init__(self, vocabulary: Spelling, ends: list[int]) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.tokens = [
            piece or b"\xff" + vocabulary.name(token).encode() for token, piece in enumerate(vocabulary.pieces())
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        return self._vocabulary.tokenise(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _words(matcher: LLMatcher) -> str:
    """The compiler's own, without the state or the excerpt that it appends."""
    message = _EXCERPT.split(matcher.get_error())[0].replace("<non-verbose/>", "").strip()
    message = _IN_SCHEMA.sub("schema: ", message)
    if _UNSUPPORTED in message:
        message = f"{message.replace(_UNSUPPORTED, 'no grammar can follow the keywords ')}: leave them out"
    return _NOTHING if message.startswith("NoExtension") else message[: limits.MAX_GRAMMAR_MESSAGE_CHARS]


def _lark(kind: str, text: str) -> str:
    """What was asked, as a Lark grammar. Raises GrammarInvalid."""
    if len(text.encode("utf-8", "replace")) > limits.MAX_GRAMMAR_BYTES:
        raise GrammarInvalid(f"longer than {limits.MAX_GRAMMAR_BYTES} bytes: make it smaller")
    match kind:
        case "json_object":
            return _json_lark({"type": "object"})
        case "json_schema":
            return _json_lark(read_schema(text))
        case "regex":
            _check_nesting(text)
            return f"{_PLAIN}start: /{regex_to_lark(text)}/\n"
        case "lark":
            _check_nesting(text)
            if len(_RULE.findall(text)) > limits.MAX_GRAMMAR_RULES:
                raise GrammarInvalid(f"more than {limits.MAX_GRAMMAR_RULES} rules and alternatives: make it smaller")
            # Last, as the last one counts.
            return f"{text}\n{_PLAIN}"
        case other:
            raise GrammarInvalid(f"no such output format: {other[:32]}")


def _json_lark(schema: dict[str, Any]) -> str:
    return f"{_PLAIN}start: %json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}\n"


def read_schema(text: str) -> dict[str, Any]:
    """A JSON Schema, checked, and closed where it may be. Raises GrammarInvalid."""
    _check_nesting(text, skip_strings=True)
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except ValueError as exc:
        raise GrammarInvalid(f"the schema is no JSON: {exc}") from exc
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise GrammarInvalid("a schema is a JSON object")
    _check_schema(schema)
    return closed(schema)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _check_nesting(text: str, *, skip_strings: bool = False) -> None:
    """Raises GrammarInvalid for brackets in brackets in brackets, which the compiler would follow by recursion."""
    depth = 0
    escaped = inside = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"' and skip_strings:
            inside = not inside
        elif inside:
            pass
        elif char in "([{":
            depth += 1
            if depth > limits.MAX_GRAMMAR_NESTING:
                raise GrammarInvalid(f"brackets more than {limits.MAX_GRAMMAR_NESTING} deep: make it flatter")
        elif char in ")]}":
            depth = max(depth - 1, 0)


def _check_schema(schema: dict[str, Any]) -> None:
    """Raises GrammarInvalid where the compiler must not go."""
    waiting: list[tuple[object, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > 2 * limits.MAX_SCHEMA_DEPTH:
            raise GrammarInvalid(f"schemas more than {limits.MAX_SCHEMA_DEPTH} deep: make it flatter, or use $defs")
        if isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise GrammarInvalid("$ref leads out of the schema: put what it names under $defs")
            for name, item in value.items():
                if name == "pattern" and isinstance(item, str):
                    _check_nesting(item)
                elif name == "patternProperties" and isinstance(item, dict):
                    for expression in item:
                        _check_nesting(expression)
                if name not in _DATA:
                    waiting.append((item, depth + 1))
