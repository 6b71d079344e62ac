"""Stop strings and UTF-8 never leak in parts, however the bytes are cut into tokens."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.worker.emit import TextHold

TEXTS = st.text(alphabet="abE\u00e9\u20ac\U0001f600 ", max_size=40)


def run(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    hold = TextHold(stop)
    shown = []
    for piece in pieces:
        text, met = hold.add(piece)
        shown.append(text)
        if met:
            return shown, True
    return [*shown, hold.rest()], False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(TEXTS, st.lists(st.text("abE\u20ac", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 200)))
def test_text_ends_right_before_the_first_stop_string(text: str, stop: list[str], places: list[int]) -> None:
    shown, met = run(cut(text.encode(), places), tuple(stop))
    hits = [text.index(word) for word in stop if word in text]
    assert met == bool(hits)
    # A stop string is met as soon as it is complete: one that began earlier may still have been open.
    if not met:
        assert "".join(shown) == text
    else:
        assert text.startswith("".join(shown))
        assert not any(word in "".join(shown) for word in stop)


def test_stop_across_token_borders() -> None:
    assert run([b"Hello ", b"<|e", b"nd", b"|> more"], ("<|end|>",)) == (["Hello ", "", "", ""], True)


def test_what_looked_like_a_stop_string_comes_later() -> None:
    assert run([b"a<", b"b"], ("<|end|>",)) == (["a", "<b", ""], False)


def test_characters_are_shown_whole() -> None:
    assert run([b"\xe2", b"\x82", b"\xac!"], ()) == (["", "", "\u20ac!", ""], False)


def test_an_unfinished_character_at_the_end_is_dropped_and_a_wrong_byte_replaced() -> None:
    assert run([b"a\xff", b"b\xe2\x82"], ()) == (["a\ufffd", "b", ""], False)
