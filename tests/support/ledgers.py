"""A ledger in a file of a test, made once for a process and copied: the migrations take longer than most tests."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sqlalchemy import URL

from deploykit.settings.web import WebSettings
from deploykit.web.ledger.ledger import Ledger


def ledger_in(directory: Path, clock: Callable[[], float] | None = None) -> Ledger:
    """Open the ledger in a directory; a new one where there is none.

    Args:
        clock: seconds since 1970, in place of the database's.
    """
    file = directory / "ledger.db"
    if not file.exists():
        shutil.copy(_template(), file)
        file.chmod(0o600)
    return Ledger.open(WebSettings(), directory, url=URL.create("sqlite", database=str(file)), clock=clock)


@cache
def _template() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="ledger-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    file = directory / "ledger.db"
    Ledger.open(WebSettings(), directory, url=URL.create("sqlite", database=str(file))).close()
    return file
