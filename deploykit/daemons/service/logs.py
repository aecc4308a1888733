"""How daemons log: one event, one line, to standard error. Console lines for people, JSON lines for machines.

Rules:

* Control characters are made visible: no text can forge a log line.
* A traceback stays inside its line.
* A registered secret is replaced by asterisks, should it ever get into a line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TextIO

from deploykit.bus.passcode import secrets_of
from deploykit.settings.log import LogSettings
from deploykit.settings.node import Settings


def escape(text: str) -> str:
    """Return a text with control and other unprintable characters made visible, so that one event stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


class _RedactingHandler(logging.StreamHandler[TextIO]):
    """Replaces registered secrets in the finished line, its traceback included."""

    def __init__(self, stream: TextIO, secrets: Callable[[], Iterable[str]]) -> None:
        super().__init__(stream)
        self._ask = secrets
        self._asked: tuple[str, ...] = ()
        self._forms: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if (secrets := tuple(self._ask())) != self._asked:
            self._asked = secrets
            forms = {form for s in secrets if len(s) >= 4 for form in (s, escape(s), json.dumps(s)[1:-1])}
            self._forms = sorted(forms, key=len, reverse=True)
        for secret in self._forms:
            line = line.replace(secret, "******")
        return line


class ConsoleFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z info bus.client: connected …`"""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("deploykit.")
        line = f"{_when(record)} {record.levelname.lower()} {name}: {escape(record.getMessage())}"
        if record.exc_info:
            line += " | " + escape(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object for each line: `time`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up(
    settings: LogSettings, *, secrets: Callable[[], Iterable[str]] | Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send deploykit's logs to standard error (or `stream`). For daemons only: a library stays silent.

    A second call replaces the set-up of the first.

    Args:
        settings: level and format.
        secrets: what no line may show, or what returns it, called for each line: a passcode may change meanwhile.
        stream: where the lines go.
    """
    ask = secrets if callable(secrets) else lambda known=tuple(secrets): known
    handler = _RedactingHandler(stream or sys.stderr, ask)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else ConsoleFormatter())
    logger = logging.getLogger("deploykit")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False


def set_up_from(settings: Settings) -> None:
    """Send a daemon's logs to standard error, as its settings say; no line shows a passcode of its brokers."""
    set_up(settings.log, secrets=secrets_of(settings.broker, *settings.keepalive.destinations.values()))
