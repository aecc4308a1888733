"""A ledger that one process opens twice, as at HUP, keeps its locks: another process does not remove its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploykit.settings.web import WebSettings
from deploykit.web.ledger.ledger import Ledger

_VISIT = """
import sqlite3, sys
opened = sqlite3.connect(sys.argv[1])
opened.execute("select * from ledger_tokens").fetchall()
opened.close()
"""


def test_what_another_process_closes_stays_open_here(tmp_path: Path) -> None:
    first = Ledger.open(WebSettings(), tmp_path)
    first.once.put("invite", "alice", 60.0)  # a connection is open, and the log holds something
    second = Ledger.open(WebSettings(), tmp_path)
    file = tmp_path / "web" / "ledger.db"
    log = file.with_name("ledger.db-wal")
    before = log.stat().st_ino
    second.close()
    subprocess.run([sys.executable, "-c", _VISIT, str(file)], check=True)
    assert log.stat().st_ino == before, "the log was removed under the ledger that is open"
    first.close()
