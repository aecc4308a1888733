"""The ledger as a file: what it keeps, its mode, damage, removal, a version that we do not know."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from deploykit.errors import LedgerError
from deploykit.settings.web import WebSettings
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.tables import METADATA
from deploykit.web.projection.store import Store
from tests.support.ledgerchecks import CHECKS, LedgerClock


def opened(state: Path, settings: WebSettings | None = None) -> Ledger:
    return Ledger.open(settings or WebSettings(), state)


def file_of(state: Path) -> Path:
    return state / "web" / "ledger.db"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_sqlite(check: Callable[[Ledger, LedgerClock], None], tmp_path: Path) -> None:
    clock = LedgerClock()
    ledger = Ledger.open(WebSettings(), tmp_path, clock=clock)
    check(ledger, clock)
    ledger.close()


def test_it_is_for_its_owner_alone_and_each_commit_is_synced(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    with ledger._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    ledger.close()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660])
def test_one_that_others_may_read_or_write_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    opened(tmp_path).close()
    file_of(tmp_path).chmod(mode)
    with pytest.raises(LedgerError, match=f"ledger .*ledger.db has mode {mode:04o}, which is too open") as raised:
        opened(tmp_path)
    assert raised.value.remedy == f"chmod 600 {file_of(tmp_path)}"
    file_of(tmp_path).chmod(0o600)
    opened(tmp_path).close()


def test_a_projection_in_another_file_has_its_ledger_in_the_state(tmp_path: Path) -> None:
    settings = WebSettings(database=f"sqlite:///{tmp_path}/elsewhere.db")
    opened(tmp_path, settings).close()
    Store.open(settings, tmp_path).close()
    assert file_of(tmp_path).exists()


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    opened(tmp_path).close()
    engine = create_engine(f"sqlite:///{file_of(tmp_path)}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "ledger_version"})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


@pytest.mark.parametrize("where", [0, 100, 8192])
def test_a_damaged_ledger_is_refused_and_stays_where_it_is(tmp_path: Path, where: int) -> None:
    ledger = opened(tmp_path)
    for at in range(50):
        ledger.once.put("p", "x" * 1000, 60 + at)
    ledger.close()
    file = file_of(tmp_path)
    content = bytearray(file.read_bytes())
    content[where : where + 2000] = b"\xff" * 2000
    file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"is damaged .*deploys that run") as raised:
        opened(tmp_path)
    assert "restore it from a backup; or move it away" in raised.value.remedy
    assert file.read_bytes() == content
    assert [each.name for each in file.parent.iterdir() if "damaged" in each.name] == []


def test_one_that_was_removed_while_it_is_in_use_is_no_place_to_write_to(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.once.put("p", "v", 60)
    file_of(tmp_path).unlink()
    with pytest.raises(LedgerError, match="was removed or replaced"):
        ledger.once.put("p", "v", 60)
    ledger.close()


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute("UPDATE ledger_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerError, match=r"the console's ledger has version '9999', unknown"):
        opened(tmp_path)


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("no directory")
    with pytest.raises(LedgerError, match="cannot use"):
        opened(tmp_path)


def test_nothing_in_the_file_is_what_a_browser_has(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    secret = ledger.once.put("login", "ann", 600)
    ledger.close()
    content = b"".join(each.read_bytes() for each in file_of(tmp_path).parent.iterdir() if each.is_file())
    assert secret.encode() not in content
