"""Log lines: a fixed event name and key=value pairs, on standard error or in a file.

`log_event` writes the keys listed here and no others, and none of them holds a prompt, an answer, a key or a
token: that nothing private is logged does not depend on anybody's care. Of a library's record only its place is
written, because its text may quote what went over the wire.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Final

from ryvion_node.config import LogSection
from ryvion_node.errors import EXIT_PERMISSION, OperatorError
from ryvion_node.paths import FILE_MODE

FIELDS: Final = frozenset(
    [
        "accepted",
        "address",
        "attempt",
        "backend",
        "bytes",
        "check",
        "checks",
        "cid",
        "code",
        "commits",
        "cost_microcredits",
        "count",
        "digest",
        "duration_ms",
        "error",
        "first_token_ms",
        "home",
        "host",
        "job",
        "jurisdiction",
        "key_id",
        "kind",
        "limit",
        "listening",
        "method",
        "model",
        "models",
        "ms",
        "name",
        "network",
        "node",
        "offers",
        "outcome",
        "peer",
        "peers",
        "pid",
        "port",
        "price_in",
        "price_out",
        "protocol",
        "queue",
        "reason",
        "request_id",
        "retry_after_ms",
        "round",
        "seq",
        "side",
        "slots",
        "state",
        "status",
        "stream",
        "topic",
        "units",
        "url",
        "version",
        "wait_ms",
        "worker",
    ]
)
"""Every key that may be written. Add one only when no value of it can be private."""

MAX_VALUE_CHARACTERS: Final = 300
OUR_LOGGERS: Final = ("ryvion", "ryvion_node")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogFileUnusable(OperatorError):
    """Cannot write the log file {path}: {reason}. Choose another in [log] file, or leave it out for standard error."""

    exit_code = EXIT_PERMISSION


def log_event(logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write `event` with `fields`; of a key that is not in FIELDS only the name is written."""
    if not logger.isEnabledFor(level):
        return
    pairs = [f"{name}={_shown(value)}" for name, value in fields.items() if name in FIELDS and value is not None]
    unlisted = sorted(set(fields) - FIELDS)
    if unlisted:
        pairs.append(f"unlisted={','.join(unlisted)}")
    logger.log(level, "%s", " ".join((event, *pairs)))


def configure_logging(section: LogSection) -> None:
    """Send all records to where the configuration says; may be called again. Raises LogFileUnusable."""
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr) if section.file is None else _file_handler(section.file)
    )
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in [present for present in root.handlers if isinstance(present.formatter, LineFormatter)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    level = _LEVELS[section.level]
    root.setLevel(max(level, logging.WARNING))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)


class LineFormatter(logging.Formatter):
    """`2026-11-22T12:00:00.123Z info ryvion.market event key=value`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Ours: the message; others': where it came from, and the kind of exception."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.name}"
        if record.name.split(".", 1)[0] in OUR_LOGGERS:
            text = _one_line(record.getMessage())
        else:
            text = f"library_message at={record.module}:{record.lineno}"
        kind = record.exc_info[0] if record.exc_info else None
        return f"{head} {text}" + (f" exception={kind.__name__}" if kind is not None else "")


def _shown(value: object) -> str:
    """One word, or a quoted string; never longer than MAX_VALUE_CHARACTERS."""
    text = str(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        text = text[:MAX_VALUE_CHARACTERS] + "..."
    plain = text and text.isprintable() and not set(text) & set(" =\"'")
    return text if plain else '"' + _one_line(text).replace('"', "'") + '"'


def _one_line(text: str) -> str:
    """Control characters escaped, so that no value can forge a line or drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.touch(FILE_MODE)
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise LogFileUnusable(path=path, reason=(exc.strerror or str(exc)).lower()) from exc
