"""The database: new, damaged, gone, newer than we are; what is written to it beside the bus; what is removed."""

from __future__ import annotations

import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, event

from deploykit.errors import ProjectionError
from deploykit.messages import Notice
from deploykit.settings.web import WebSettings
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.fold import fold
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.store import Store
from deploykit.web.projection.tables import METADATA
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import NOW, WEB1, WEB2, WEB3, heard_messages, world_queries, world_store

_ALL = PageRequested(limit=500)


def _file(state: Path) -> Path:
    return state / "web" / "console.db"


def _opened(state: Path, settings: WebSettings | None = None) -> Store:
    return Store.open(settings or WebSettings(), state, now=lambda: NOW)


def test_what_was_heard_is_there_after_a_restart(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    assert store.began_empty
    before = world_queries(store).sites(EVERYBODY)
    store.close()
    store = _opened(tmp_path)
    assert not store.began_empty
    assert world_queries(store).sites(EVERYBODY) == before
    store.close()
    assert stat.S_IMODE(_file(tmp_path).stat().st_mode) & 0o027 == 0


def test_migrations_make_the_tables_that_are_used(tmp_path: Path) -> None:
    _opened(tmp_path).close()
    engine = create_engine(f"sqlite:///{_file(tmp_path)}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


@pytest.mark.parametrize("damage", [b"no database at all" * 400, b"SQLite format 3\0" + b"\xff" * 8176])
def test_a_damaged_file_is_moved_aside_and_said_so(tmp_path: Path, damage: bytes) -> None:
    world_store(tmp_path).close()
    for end in ("-wal", "-shm"):
        _file(tmp_path).with_name(f"console.db{end}").unlink(missing_ok=True)
    _file(tmp_path).write_bytes(damage)
    store = _opened(tmp_path)
    assert store.began_empty
    assert store.set_aside_because
    assert world_queries(store).sites(EVERYBODY) == ()
    (aside,) = _file(tmp_path).parent.glob("console.db.damaged-*")
    assert aside.read_bytes() == damage
    store.close()


def test_a_file_that_is_removed_while_the_console_runs_is_made_anew(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    store.began_empty = False
    _file(tmp_path).unlink()
    notice = Notice(id="late", time=NOW, text="after the loss")
    store.apply([Heard(message=notice, received=NOW)])
    assert store.began_empty
    assert store.set_aside_because == "it was removed"
    assert [each.text for each in world_queries(store).notices(EVERYBODY, _ALL).items] == ["after the loss"]
    store.close()
    store = _opened(tmp_path)
    assert len(world_queries(store).notices(EVERYBODY, _ALL).items) == 1
    store.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    _opened(tmp_path).close()
    with sqlite3.connect(_file(tmp_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ProjectionError, match="version '9999', unknown to this deploykit"):
        _opened(tmp_path)
    assert not list(_file(tmp_path).parent.glob("*.damaged-*"))


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("a file in the way")
    with pytest.raises(ProjectionError, match="web"):
        _opened(tmp_path)


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "postgresql://h:port/x", "nonsense"])
def test_a_url_that_is_not_supported_is_an_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(ProjectionError, match=r"web\.database"):
        Store.open(WebSettings(database=url), tmp_path)


def test_a_full_disk_is_an_error_and_the_same_batch_can_be_tried_again(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    engine = store._connected()
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def full(connection: sqlite3.Connection, _record: object, _proxy: object = None) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    def roomy(connection: sqlite3.Connection, _record: object, _proxy: object = None) -> None:
        connection.execute("PRAGMA max_page_count=1000000")

    event.listen(engine, "checkout", full)
    with pytest.raises(ProjectionError, match="full"):
        store.apply(heard_messages(log_lines=5000))
    event.remove(engine, "checkout", full)
    event.listen(engine, "checkout", roomy)
    assert not store.began_empty or world_queries(store).pushes(EVERYBODY, "", _ALL).items == ()
    store.apply(heard_messages(log_lines=5000))
    assert len(world_queries(store).sites(EVERYBODY)) == 2
    store.close()


def test_a_message_that_cannot_be_kept_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(rows: WorkingRows, heard: Heard) -> None:
        if heard.message.id == "bad":
            raise KeyError("a bug")
        fold(rows, heard)

    monkeypatch.setattr("deploykit.web.projection.store.fold", fails)
    store = _opened(tmp_path)
    notices = [Notice(id=id, time=NOW, text=id) for id in ("first", "bad", "last")]
    store.apply([Heard(message=notice, received=NOW) for notice in notices])
    assert {each.text for each in world_queries(store).notices(EVERYBODY, _ALL).items} == {"first", "last"}
    assert "cannot keep a deploykit.notice.v1" in caplog.text
    store.close()


def test_nodes_that_do_not_answer_are_silent_until_they_are_heard(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    queries = world_queries(store)
    store.answered([WEB1, WEB2], NOW)
    web3 = queries.node(EVERYBODY, WEB3)
    assert web3 is not None
    assert web3.silent
    standings = {each.node: each.standing for each in queries.site_nodes(EVERYBODY, "shop", _ALL).items}
    assert standings[WEB3] == "silent"
    assert any(problem.kind == "node" and problem.node == WEB3 for problem in queries.problems(EVERYBODY))
    later = NOW + timedelta(minutes=1)
    heard = next(each for each in heard_messages() if each.message.source == f"agent/{WEB3}")
    store.apply([Heard(message=attrs.evolve(heard.message, time=later), received=later, signer="x")])
    web3 = queries.node(EVERYBODY, WEB3)
    assert web3 is not None
    assert not web3.silent
    standings = {each.node: each.standing for each in queries.site_nodes(EVERYBODY, "shop", _ALL).items}
    assert standings[WEB3] == "outdated"
    store.close()


def test_when_nobody_answers_what_was_current_is_still_shown(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    before = world_queries(store).site(EVERYBODY, "shop")
    store.answered([], NOW)
    after = world_queries(store).site(EVERYBODY, "shop")
    assert before is not None
    assert after is not None
    assert (after.commit, after.ref) == (before.commit, before.ref)
    assert dict(after.counts) == {"silent": 3}
    store.close()


def test_the_consoles_own_decisions_are_in_the_audit(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    entry = AuditView(
        id="1", time=NOW, action="login", decision="refused", who="eve\x00", where="console", detail="wrong password"
    )
    store.note(entry)
    store.note(entry)
    first, second, *_ = world_queries(store).audit(EVERYBODY, "", _ALL).items
    assert (first.action, first.decision, first.who, first.where) == ("login", "refused", "eve\ufffd", "console")
    assert second.action != "login"
    store.close()


def test_what_is_too_old_is_removed_in_steps(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    queries = world_queries(store)
    assert store.prune(NOW) == 0
    while store.prune(NOW + timedelta(days=91)):
        pass
    assert queries.pushes(EVERYBODY, "", _ALL).items == ()
    assert queries.rollouts(EVERYBODY, "", _ALL).items == ()
    assert queries.nodes(EVERYBODY, _ALL).items == ()
    assert queries.audit(EVERYBODY, "", _ALL).items == ()
    with sqlite3.connect(_file(tmp_path)) as connection:
        left = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in METADATA.tables}
    connection.close()
    kept = {"meta", "repos", "sites", "locks", "questions"}  # locks are statements: they do not grow old
    assert {name for name, count in left.items() if count} <= kept
    store.close()


def test_more_rows_than_may_be_kept_lose_the_oldest(tmp_path: Path) -> None:
    store = _opened(tmp_path, WebSettings(keep_rows=1000))
    notices = [Notice(id=str(at), time=NOW + timedelta(seconds=at), text=str(at)) for at in range(1500)]
    store.apply([Heard(message=notice, received=NOW + timedelta(hours=1)) for notice in notices])
    while store.prune(NOW):
        pass
    queries = world_queries(store)
    texts = [each.text for each in queries.notices(EVERYBODY, _ALL).items]
    assert texts[0] == "1499"
    last = queries.notices(EVERYBODY, PageRequested(limit=1, search="499")).items
    assert [each.text for each in last] == ["1499"]
    store.close()


def test_a_closed_store_is_an_error(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    queries = world_queries(store)
    store.close()
    with pytest.raises(ProjectionError, match="closed"):
        queries.sites(EVERYBODY)
    assert _file(tmp_path).exists()
