"""Grammars over the bundled tokenizer: what they allow, where they end, and what hostile ones cost."""

from __future__ import annotations

import itertools
import json
import random
import string
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ryvion_node.engine import constants as limits
from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.worker.choosing import Chooser, MaskFailed
from ryvion_node.engine.worker.grammar import GrammarInvalid, GrammarMask, Grammars
from ryvion_node.engine.worker.llama import Log, Model, Vocabulary
from tests.node.engine.engine_support import TINY

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Model(TINY, vocab_only=True, gpu_layers=0, on_progress=lambda _share: None, log=Log()).vocabulary


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


def after(mask: GrammarMask, vocabulary: Vocabulary, text: str) -> set[bytes]:
    """The pieces that may follow this text; control tokens by name."""
    for token in vocabulary.tokenise(text):
        assert mask.allowed()[token], vocabulary.piece(token)
        mask.take(token)
    ids = np.flatnonzero(mask.allowed()).tolist()
    return {vocabulary.piece(token) or vocabulary.name(token).encode() for token in ids}


@pytest.mark.parametrize(
    ("kind", "text", "said", "follows"),
    [
        ("json_schema", PERSON, '{"', {b"n", b"na", b"nam", b"name"}),
        ("json_schema", PERSON, '{"name": "Ada", "age": 3}', {b"<|end|>"}),
        ("json_schema", "true", "null", {b"<|end|>"}),
        ("json_object", "", "", {b"{"}),
        ("json_object", "", '{"a": {}}', {b"<|end|>"}),
        ("regex", "[0-9]{3}/x", "12", set(string.digits.encode().split()) | {bytes([c]) for c in b"0123456789"}),
        ("regex", "a|ab", "ab", {b"<|end|>"}),
        ("lark", 'start: "yes" | "no"', "ye", {b"s"}),
        ("lark", 'start: "x" <|user|>', "x", {b"<|user|>"}),
        ("lark", '%llguidance {"no_forcing": false}\nstart: "hello"', "he", {b"l", b"ll", b"llo"}),
    ],
)
def test_the_mask_is_what_the_texts_say(
    kind: str, text: str, said: str, follows: set[bytes], grammars: Grammars, vocabulary: Vocabulary
) -> None:
    """R-05-15: any token that fits, not only the canonical one."""
    pieces = {vocabulary.piece(token) or vocabulary.name(token).encode() for token in range(vocabulary.size)}
    assert after(grammars.compile((kind, text)), vocabulary, said) == follows & pieces


def test_whitespace_between_json_tokens_is_bounded(grammars: Grammars, vocabulary: Vocabulary) -> None:
    """R-05-15"""
    follows = after(grammars.compile(("json_schema", '{"type": "array"}')), vocabulary, "[ ")
    assert b" " not in follows
    assert b"1" in follows
    follows = after(grammars.compile(("json_schema", '{"type": "array"}')), vocabulary, "[\n" + 32 * " ")
    assert b" " not in follows


def test_a_text_that_may_go_on_may_also_end(grammars: Grammars, vocabulary: Vocabulary) -> None:
    assert {b"<|end|>", b"a"} <= after(grammars.compile(("regex", "a+")), vocabulary, "aa")


def random_texts(grammars: Grammars, vocabulary: Vocabulary, output: tuple[str, str]) -> Iterator[str]:
    """Texts made of equal logits under a grammar."""
    flat = np.zeros(vocabulary.size, np.float32)
    for seed in range(12):
        chooser = Chooser(vocabulary, Sampling(1.0, 1.0, seed), (), grammars.compile(output))
        made = b""
        for position in range(400):
            token = chooser.choose(flat, position).token
            if vocabulary.ends(token):
                yield made.decode()
                break
            made += vocabulary.piece(token)
        else:
            raise AssertionError(made)


def test_whatever_is_drawn_under_a_schema_fits_it(grammars: Grammars, vocabulary: Vocabulary) -> None:
    for text in random_texts(grammars, vocabulary, ("json_schema", PERSON)):
        person = json.loads(text)
        assert set(person) == {"name", "age"}
        assert len(person["name"]) <= 8
        assert person["age"] >= 0


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("json_schema", "", "no JSON"),
        ("json_schema", "{", "no JSON"),
        ("json_schema", '{"minimum": NaN}', "no JSON number"),
        ("json_schema", "[]", "a schema is a JSON object"),
        ("json_schema", "false", "a schema is a JSON object"),
        ("json_schema", '{"type": "strong"}', "Invalid type: strong"),
        (
            "json_schema",
            '{"not": {"type": "string"}}',
            r'^schema: no grammar can follow the keywords \["not"\]: leave them out$',
        ),
        ("json_schema", '{"$ref": "http://example.org/s.json"}', r"\$defs"),
        ("json_schema", '{"properties": {"a": {"$ref": "file:///etc/passwd"}}}', r"\$defs"),
        ("json_schema", '{"$ref": "#"}', "allows no token"),
        ("json_schema", '{"allOf": [{"type": "string"}, {"type": "integer"}]}', "."),
        ("json_schema", "[" * 20_000, "deep"),
        ("json_schema", '"' + '\\"' * 32_000, "no JSON"),
        ("json_schema", '{"items":' * 65 + "{}" + "}" * 65, "deep"),
        ("json_schema", '{"pattern": "%s"}' % ("(" * 300 + ")" * 300), "deep"),
        ("json_schema", '{"type": "string", "pattern": "(?=a)b"}', "look-around"),
        ("json_schema", '{"const": "%s"}' % ("x" * limits.MAX_GRAMMAR_BYTES), "bytes"),
        ("regex", "(" * 20_000, "deep"),
        ("regex", "[", "unclosed"),
        ("regex", r"[^\s\S]", "allows no token"),
        ("lark", "start: " + "(" * 20_000, "deep"),
        ("lark", "start", "Expected"),
        ("lark", 'start: "a" missing', "missing"),
        ("lark", "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"', "rules"),
        ("lark", "start: " + "|".join(['"a"'] * 9000), "rules"),
        ("yaml", "a", "no such output format"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_words(kind: str, text: str, reason: str, grammars: Grammars) -> None:
    with pytest.raises(GrammarInvalid, match=reason) as caught:
        grammars.compile((kind, text))
    assert 0 < len(str(caught.value)) <= limits.MAX_GRAMMAR_MESSAGE_CHARS + 100


def test_hidden_compiler_options_do_nothing(grammars: Grammars) -> None:
    lenient = {"type": "string", "not": {"const": "a"}, "x-guidance": {"lenient": True}}
    with pytest.raises(GrammarInvalid):
        grammars.compile(("json_schema", json.dumps(lenient)))


def chain_of_schemas() -> str:
    names = ["".join(pair) for pair in itertools.product(string.ascii_letters, repeat=2)][:1500]
    defs: dict[str, object] = {
        name: {"items": {"$ref": f"#/$defs/{following}"}} for name, following in itertools.pairwise(names)
    }
    defs[names[-1]] = {"type": "null"}
    return json.dumps({"$ref": f"#/$defs/{names[0]}", "$defs": defs}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", chain_of_schemas()),
        ("json_schema", json.dumps({"enum": [f"value {number}" for number in range(4000)]})),
        ("json_schema", json.dumps({"properties": {f"p{number}": {} for number in range(4000)}})),
        ("json_schema", '{"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}}'),
        ("json_schema", '{"items": {"$ref": "#"}, "type": "array"}'),
        ("json_schema", '{"type": "array", "minItems": 1000000000}'),
        ("json_schema", '{"type": "string", "pattern": "^(a+)+$"}'),
        ("regex", "((a{1000}){1000}){1000}"),
        ("regex", "(a|a|aa)+(a+)+b"),
        ("regex", "(.*a){0,40}(.*b){0,40}"),
        ("regex", ".*a.{1000}"),
        ("lark", "start: e\ne: e e | e e e | /[ab]/"),
        ("lark", "start: a0\n" + "".join(f"a{i}: a{i + 1}\n" for i in range(400)) + 'a400: "x"'),
        ("lark", "start: A0\n" + "".join(f'A{i}: (A{i + 1} "b")*\n' for i in range(400)) + 'A400: "x"'),
        ("lark", "start: " + "|".join(['"a"'] * 900)),
        ("lark", "start: (" + "|".join(["x"] * 900) + ')+\nx: "a" | "b"'),
    ],
)
def test_a_costly_grammar_is_followed_or_refused(
    kind: str, text: str, grammars: Grammars, vocabulary: Vocabulary
) -> None:
    """It may fail (R-05-16), but it ends, and the process lives."""
    start = time.perf_counter()
    try:
        mask = grammars.compile((kind, text))
        pick = random.Random(1)
        for _ in range(40):
            token = pick.choice(np.flatnonzero(mask.allowed()).tolist())
            if vocabulary.ends(token):
                break
            mask.take(token)
    except (GrammarInvalid, MaskFailed):
        pass
    assert time.perf_counter() - start < 2 * limits.GRAMMAR_COMPILE_S


def test_a_grammar_left_behind_says_so(grammars: Grammars, vocabulary: Vocabulary) -> None:
    """R-05-16: never a dead worker."""
    mask = grammars.compile(("regex", "[0-9]+"))
    mask.take(vocabulary.tokenise("x")[0])
    with pytest.raises(MaskFailed):
        mask.allowed()


def test_a_model_without_an_end_refuses_grammars(vocabulary: Vocabulary) -> None:
    class Endless:
        size = vocabulary.size
        pieces, name, tokenise = vocabulary.pieces, vocabulary.name, vocabulary.tokenise

        def ends(self, token: int) -> bool:
            return False

    with pytest.raises(GrammarInvalid, match="no token that ends"):
        Grammars(Endless()).compile(("regex", "a"))


def test_pieces_are_those_of_each_token(vocabulary: Vocabulary) -> None:
    assert vocabulary.pieces() == [vocabulary.piece(token) for token in range(vocabulary.size)]


def test_many_masks_are_followed_at_once(grammars: Grammars, vocabulary: Vocabulary) -> None:
    masks = [grammars.compile(("regex", f"{digit}+")) for digit in range(8)]
    for _ in range(5):
        for digit, mask in enumerate(masks):
            mask.take(vocabulary.tokenise(str(digit))[0])
    for digit, mask in enumerate(masks):
        assert mask.ready(5.0)
        assert str(digit).encode() in {vocabulary.piece(token) for token in np.flatnonzero(mask.allowed()).tolist()}
