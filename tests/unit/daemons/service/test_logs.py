"""Daemon logs: one event is one line, whatever a message holds; a secret never gets through."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploykit.daemons.service import logs
from deploykit.settings import LogSettings


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    logger = logging.getLogger("deploykit")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_threat_23_escapes_and_newlines_in_a_log_line_are_made_visible() -> None:
    out = io.StringIO()
    logs.set_up(LogSettings(), stream=out)
    logging.getLogger("deploykit.x").info("ref %s", "\x1b[2Jv1\n2026 error forged: line\u202e")
    (line,) = out.getvalue().splitlines()
    assert "\\x1b[2Jv1\\n2026 error forged" in line
    assert "\u202e" not in line


def test_json_lines_hold_a_traceback_inside_one_line() -> None:
    out = io.StringIO()
    logs.set_up(LogSettings(format="json"), stream=out)
    logging.getLogger("deploykit.x").error("went wrong", exc_info=ValueError("two\nlines"))
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert "two\nlines" in entry["exception"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_registered_secret_is_blotted_out(form: str) -> None:
    out = io.StringIO()
    logs.set_up(LogSettings(format=form), secrets=["canary-77"], stream=out)  # type: ignore[arg-type]
    logging.getLogger("deploykit.x").warning("login with %s failed", "canary-77")
    assert "canary" not in out.getvalue()
    assert "******" in out.getvalue()


def test_a_secret_that_came_later_is_blotted_out() -> None:
    out, secrets = io.StringIO(), ["canary-77"]
    logs.set_up(LogSettings(), secrets=lambda: secrets, stream=out)
    secrets.append("canary-88")
    logging.getLogger("deploykit.x").warning("login with canary-88 failed, canary-77 was the old one")
    assert "canary" not in out.getvalue()


def test_a_secret_in_a_traceback_is_blotted_out() -> None:
    out = io.StringIO()
    logs.set_up(LogSettings(), secrets=["canary-77"], stream=out)
    logging.getLogger("deploykit.x").error("went wrong", exc_info=ValueError("passcode canary-77"))
    assert "canary" not in out.getvalue()
    assert "ValueError" in out.getvalue()


def test_the_library_alone_prints_nothing() -> None:
    code = "import deploykit, logging; logging.getLogger('deploykit.bus').error('nobody asked')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
