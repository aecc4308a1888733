"""The projection in a real PostgreSQL: the same answers as from SQLite, two consoles at once, lost connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from deploykit.errors import ProjectionError
from deploykit.settings.web import WebSettings
from deploykit.web.database import PROJECTION, database_url, make_engine, writing
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.postgres import running_postgres
from tests.support.wait import wait_until
from tests.support.webworld import FAILED, NOW, REPO, heard_messages, world_queries, world_store

_ALL = PageRequested(limit=500)
_BOUNDS = ("idle_in_transaction_session_timeout", "lock_timeout")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a running server."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def settings(server: str) -> WebSettings:
    """Settings with an empty database."""
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return WebSettings(database=server)


def _answers(store: Store) -> list[object]:
    queries = world_queries(store)
    return [
        queries.sites(EVERYBODY),
        queries.problems(EVERYBODY),
        queries.changes(EVERYBODY),
        queries.site_nodes(EVERYBODY, "shop", _ALL),
        queries.nodes(EVERYBODY, PageRequested(limit=2, search="EXAMPLE")),
        queries.pushes(EVERYBODY, "", _ALL),
        queries.builds(EVERYBODY, "", PageRequested(search="%")),
        queries.refs(EVERYBODY, REPO, PageRequested(limit=2)),
        queries.rollouts(EVERYBODY, "", _ALL),
        queries.rollout(EVERYBODY, FAILED, _ALL),
        queries.log(EVERYBODY, FAILED, "web1", 0, 5000),
        queries.history(EVERYBODY, "shop", "", _ALL),
        queries.audit(EVERYBODY, "", _ALL),
        queries.notices(EVERYBODY, _ALL),
        queries.node_mirrors(EVERYBODY, "web3", _ALL),
        queries.repositories(EVERYBODY),
    ]


@pytest.mark.parametrize("hostile", [False, True])
def test_postgresql_gives_the_same_answers_as_sqlite(tmp_path: Path, settings: WebSettings, hostile: bool) -> None:
    theirs = world_store(tmp_path, hostile=hostile, settings=settings)
    ours = world_store(tmp_path, hostile=hostile)
    assert theirs.began_empty
    for found, wanted in zip(_answers(theirs), _answers(ours), strict=True):
        assert found == wanted
    theirs.close()
    again = Store.open(settings, tmp_path, now=lambda: NOW)
    assert not again.began_empty
    assert again.prune(NOW) == 0
    for each in (again, ours):
        each.close()


def test_two_consoles_may_use_one_database(tmp_path: Path, settings: WebSettings) -> None:
    stores = [Store.open(settings, tmp_path, now=lambda: NOW) for _ in range(2)]
    messages = heard_messages(log_lines=500)
    failures: list[Exception] = []

    def feed(store: Store) -> None:
        try:
            for at in range(0, len(messages), 5):
                store.apply(messages[at : at + 5])
        except ProjectionError as error:
            failures.append(error)

    threads = [threading.Thread(target=feed, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    ours = world_store(tmp_path, log_lines=500)
    assert _answers(stores[0]) == _answers(ours)
    for store in (*stores, ours):
        store.close()


def test_connections_that_the_server_has_ended_are_made_anew(
    tmp_path: Path, settings: WebSettings, server: str
) -> None:
    store = world_store(tmp_path, settings=settings)
    before = _answers(store)
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_until(lambda: connection.execute(text(f"SELECT count(*) {others}")).scalar() == 0, "they have ended")
    engine.dispose()
    store.apply(heard_messages())
    assert _answers(store) == before
    store.close()


def test_a_console_that_was_stopped_in_a_transaction_keeps_no_other_from_its_audit(
    tmp_path: Path, settings: WebSettings
) -> None:
    store = Store.open(settings, tmp_path, now=lambda: NOW)
    with store._transaction() as connection:
        bounds = [connection.execute(text(f"SHOW {name}")).scalar() for name in _BOUNDS]
    assert bounds == ["10s", "15s"]
    quick = attrs.evolve(PROJECTION, most_idle=1.5, most_wait=60)  # not between two statements
    stopped = make_engine(database_url(settings, tmp_path), None, quick)

    def stop_and_go_on() -> None:
        with writing(stopped) as connection:
            store.note(AuditView(id="a1", time=NOW, action="abort", decision="asked", who="ada"))  # waits for its lock
            connection.execute(text("SELECT 1"))

    with pytest.raises(SQLAlchemyError, match="idle-in-transaction"):
        stop_and_go_on()
    assert [line.id for line in world_queries(store).audit(EVERYBODY, "", _ALL).items] == ["a1"]
    stopped.dispose()
    store.close()


def test_a_console_waits_for_a_lock_for_a_while_only(tmp_path: Path, settings: WebSettings) -> None:
    store = Store.open(settings, tmp_path, now=lambda: NOW)
    hasty = make_engine(database_url(settings, tmp_path), None, attrs.evolve(PROJECTION, most_wait=0.2))
    with store._transaction(), pytest.raises(SQLAlchemyError, match="lock timeout"), writing(hasty):
        pytest.fail("it got the lock that another one holds")
    hasty.dispose()
    store.close()


def test_a_server_that_is_away_is_an_error_that_names_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2-canary\n")
    secret.chmod(0o600)
    url = f"postgresql://console@/postgres?host={tmp_path}"
    with pytest.raises(ProjectionError) as caught:
        Store.open(WebSettings(database=url, database_password_file=secret), tmp_path)
    assert "cannot be used" in str(caught.value)
    assert "canary" not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize("name", ["\x00", "shop\x00", "\ud800"])
def test_a_name_that_the_database_does_not_take_is_not_found(settings: WebSettings, tmp_path: Path, name: str) -> None:
    store = world_store(tmp_path, settings=settings)
    queries = world_queries(store)
    assert queries.site(EVERYBODY, name) is None
    assert queries.node(EVERYBODY, name) is None
    assert queries.rollout(EVERYBODY, name, _ALL) is None
    assert queries.log(EVERYBODY, FAILED, name, 0, 10) is None
    assert queries.operation(EVERYBODY, "shop", f"{name}:1") is None
    lists = (queries.pushes, queries.builds, queries.rollouts, queries.audit, queries.refs)
    assert [ask(EVERYBODY, name, _ALL).items for ask in lists] == [()] * 5
    assert queries.history(EVERYBODY, name, name, _ALL).items == ()
    assert queries.site_nodes(EVERYBODY, name, _ALL).items == ()
    assert queries.node_mirrors(EVERYBODY, name, _ALL).items == ()
    store.close()
