"""Only listed keys are written, one line per record, and nothing of a library's text."""

from __future__ import annotations

import io
import logging
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryvion_node.config import LogSection
from ryvion_node.log import FIELDS, LogFileUnusable, configure_logging, log_event

log = logging.getLogger("ryvion.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    before = (
        root.level,
        list(root.handlers),
        {name: logging.getLogger(name).level for name in ("ryvion", "ryvion_node")},
    )
    yield
    root.setLevel(before[0])
    for handler in set(root.handlers) - set(before[1]):
        root.removeHandler(handler)
        handler.close()
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LogSection())
    return stream


def test_an_event_is_one_line_of_keys_and_values(lines: io.StringIO) -> None:
    log_event(log, "job_sold", job="ab12", units=42, reason=None, status="two words")
    line = lines.getvalue()
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info ryvion\.test job_sold job=ab12 units=42 status="two words"\n',
        line,
    )


def test_an_unlisted_key_loses_its_value(lines: io.StringIO) -> None:
    log_event(log, "job_sold", job="ab12", prompt="my secret", answer="42!")
    assert "secret" not in lines.getvalue()
    assert "42!" not in lines.getvalue()
    assert "unlisted=answer,prompt" in lines.getvalue()


def test_nothing_private_is_listed() -> None:
    assert not FIELDS & {"prompt", "answer", "text", "content", "message", "messages", "token", "tokens", "key", "seed"}


def test_a_value_cannot_forge_a_line_or_drive_a_terminal(lines: io.StringIO) -> None:
    log_event(log, "peer_failed", reason='x"\n2026 error ryvion job_sold\x1b[2J' + "y" * 1000)
    assert lines.getvalue().count("\n") == 1
    assert "\x1b" not in lines.getvalue()
    assert len(lines.getvalue()) < 500


def test_a_librarys_text_is_not_written(lines: io.StringIO) -> None:
    logging.getLogger("somelibrary.core").warning("got %s", "the prompt")
    logging.getLogger("somelibrary.core").info("not even this")
    assert "prompt" not in lines.getvalue()
    assert re.search(r"warning somelibrary\.core library_message at=test_foundations_log:\d+", lines.getvalue())
    assert lines.getvalue().count("\n") == 1


def test_an_exceptions_text_is_not_written(lines: io.StringIO) -> None:
    try:
        raise ValueError("the prompt")
    except ValueError:
        log.exception("it failed")
    assert lines.getvalue().endswith("it failed exception=ValueError\n")


def test_the_level_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LogSection(level="warning"))
    log_event(log, "quiet")
    log_event(log, "loud", level=logging.WARNING)
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_a_file_is_private_and_configuring_again_moves_on(tmp_path: Path) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    configure_logging(LogSection(file=first))
    log_event(log, "one")
    configure_logging(LogSection(file=second))
    log_event(log, "two")
    assert (first.read_text().count("\n"), second.read_text().count("\n")) == (1, 1)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFileUnusable, match=r"\[log\] file"):
        configure_logging(LogSection(file=tmp_path / "no" / "such" / "a.log"))
