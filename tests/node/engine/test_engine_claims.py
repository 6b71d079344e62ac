"""A worker that says impossible things about its model is ended; none of them reaches an offer or a terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.claims import JobMessage, check_job, check_ready, check_speed, plain_line
from ryvion_node.engine.constants import MAX_FIGURE
from ryvion_node.engine.figures import FigureBook, Figures
from ryvion_node.engine.interface import EngineModel, ModelSpec
from ryvion_node.engine.wire import Counted, JobEnded, JobPiece, JobRead, Ready, Speed, Start, WireError
from ryvion_node.executor.announcer import Advert, draw_up_offer
from ryvion_node.executor.hardware import SCRIPTED_HARDWARE
from ryvion_protocol.signing import SigningIdentity
from tests.node.engine.engine_support import REQUEST, TINY, failure, running

DIGEST = b"\1" * 32
START = Start("/m.gguf", DIGEST, b"", 0, 4, -1, 0, False, "")
READY = Ready(DIGEST, (1, 2, 3), "Q8_0", "chat", 0, 512, 50_000, 500_000, (900, 0, 1200))
FIGURES = Figures("Q8_0", "chat", 0, 512, 50_000, 500_000, 1200)


@pytest.mark.parametrize(
    "lie",
    [
        {"digest": b"\2" * 32},
        {"digest": b""},
        {"quantisation": "Q" * 65},
        {"quantisation": "Q8\x1b[2J"},
        {"kind": "oracle"},
        {"dimensions": 1 << 40},
        {"context_tokens": -1},
        {"context_tokens": 1 << 32},
        {"millitokens_per_s": -1},
        {"prompt_millitokens_per_s": 1 << 70},
        {"step_us": (-1,)},
        {"step_us": (1,) * 65},
    ],
    ids=str,
)
def test_impossible_figures_end_the_worker(lie: dict[str, object]) -> None:
    check_ready(READY, START)
    with pytest.raises(WireError):
        check_ready(replace(READY, **lie), START)  # type: ignore[arg-type]


def test_a_vocabulary_has_no_digest() -> None:
    check_ready(Ready(b"", (), "Q8_0", "chat", 0, 0, 0, 0, ()), replace(START, vocab_only=True))


@pytest.mark.parametrize("speed", [Speed(-1, 1), Speed(1, -1), Speed(MAX_FIGURE + 1, 1)])
def test_impossible_speeds_end_the_worker(speed: Speed) -> None:
    check_speed(Speed(0, MAX_FIGURE))
    with pytest.raises(WireError):
        check_speed(speed)


@pytest.mark.parametrize(
    ("sound", "lie"),
    [
        (JobRead(1, 5, 5), {"cached_tokens": 6}),
        (JobRead(1, 5, 5), {"cached_tokens": -1}),
        (JobRead(1, 5, 5), {"prompt_tokens": 1 << 32}),
        (JobPiece(1, "", (0, 7), "", ((0, "", "", ""),), ()), {"tokens": (-1,)}),
        (JobPiece(1, "", (0, 7), "", ((0, "", "", ""),), ()), {"tokens": (1 << 32,)}),
        (JobPiece(1, "", (0, 7), "", ((0, "", "", ""),), ()), {"calls": ((-1, "", "", ""),)}),
        (JobEnded(1, "stop", 5, 5), {"reasoning_tokens": 6}),
        (JobEnded(1, "stop", 5, 0), {"completion_tokens": -1}),
        (Counted(1, 0), {"tokens": -1}),
    ],
    ids=str,
)
def test_impossible_counts_end_the_worker(sound: JobMessage, lie: dict[str, object]) -> None:
    check_job(sound)
    with pytest.raises(WireError):
        check_job(replace(sound, **lie))  # type: ignore[arg-type]


NUMBERS = st.integers() | st.sampled_from([0, 2**32 - 1, 2**32, MAX_FIGURE])


@given(
    st.builds(
        Ready,
        st.just(DIGEST),
        st.just(()),
        st.text(max_size=70),
        st.sampled_from(["chat", "embedding"]),
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.just(()),
    )
)
def test_whatever_passes_fits_an_offer(ready: Ready) -> None:
    try:
        check_ready(ready, START)
    except WireError:
        return
    identity = SigningIdentity(bytes(32))
    model = EngineModel(
        "small",
        ready.digest,
        ready.quantisation,
        "chat",
        ready.context_tokens,
        4,
        ready.millitokens_per_s,
        ready.prompt_millitokens_per_s,
    )
    advert = Advert("main", "test", SCRIPTED_HARDWARE, "DE", "", 1, 1)
    assert draw_up_offer(advert, identity, [model], lambda _name: 1, [], 1_000_000) is not None


@pytest.mark.parametrize(
    "lie", [{"millitokens_per_s": -1}, {"context_tokens": 1 << 40}, {"kind": "oracle"}, {"load_ms": -1}], ids=str
)
def test_remembered_figures_that_cannot_be_are_forgotten(home: Path, lie: dict[str, object]) -> None:
    store = home / "speeds.json"
    spec = ModelSpec("small", Path("/models/small.gguf"), slots=4)
    FigureBook(store).put(spec, DIGEST, FIGURES)
    document = json.loads(store.read_text())
    document["figures"] = {key: asdict(FIGURES) | lie for key in document["figures"]}
    store.write_text(json.dumps(document))
    assert FigureBook(store).get(spec, DIGEST) is None


async def test_words_of_a_file_steer_no_terminal(tmp_path: Path) -> None:
    data = TINY.read_bytes()
    at = data.index(b"llama", data.index(b"general.architecture"))
    file = tmp_path / "m.gguf"
    file.write_bytes(data[:at] + b"\x1b[2Ja" + data[at + 5 :])
    async with running(ModelSpec("small", file, slots=1)) as engine:
        reason = engine.status()[0].reason
        assert "unknown model architecture" in reason
        assert reason.isprintable()
        assert str(await failure(engine, replace(REQUEST, model="small"))).isprintable()


@given(st.text())
def test_plain_lines_are_printable_and_keep_what_is(text: str) -> None:
    assert plain_line(text).isprintable()
    assert len(plain_line(text)) == len(text)
    assert not text.isprintable() or plain_line(text) == text
