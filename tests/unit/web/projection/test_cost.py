"""What the projection may cost: statements of a batch, tables that a question reads whole, patience of who looks."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, event, text

from deploykit.messages import HeldRef, Message, NodeDescribed, NodeQueried, SiteOperation, SiteState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.refforms import NO_AGE
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import NOW, heard_messages, world_queries, world_store

#: Tables with a row for each node and site, ref, or operation.
_LARGE = ("site_nodes", "node_refs", "history", "mirrors", "rollout_nodes", "log_chunks", "audit", "pushes")
_PAGE = PageRequested(limit=50)
_COMMIT = ObjectId("1" * 40)


@contextmanager
def _statements() -> Iterator[list[tuple[str, Any]]]:
    """Yield the statements that any connection executes meanwhile, with their values."""
    found: list[tuple[str, Any]] = []

    def note(*arguments: object) -> None:
        found.append((str(arguments[2]), arguments[3]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _answers(nodes: int, question: NodeQueried, minutes: int) -> list[Heard]:
    time = NOW + timedelta(minutes=minutes)
    question = attrs.evolve(question, time=time)
    messages: list[Message] = [question]
    for number in range(nodes):
        states, refs = [], []
        for at in range(4):
            repo, tag = RepoName(f"repo{at}"), RefName("refs/tags/v1")
            operations = tuple(
                SiteOperation(
                    number=n, phase="deploy", outcome="success", release=f"r{n}", commit=_COMMIT, finished=NOW
                )
                for n in (2, 1)
            )
            state = SiteState(
                site=SiteName(f"site{at}"), repo=repo, release="r2", ref=tag, commit=_COMMIT, history=operations
            )
            states.append(state)
            refs += [HeldRef(repo=repo, ref=RefName(f"refs/tags/v{n}"), commit=_COMMIT, time=NOW) for n in range(3)]
        described = NodeDescribed(
            time=time,
            node=NodeName(f"node{number:03}"),
            request=question.id,
            sites=tuple(states),
            refs=tuple(refs),
            refs_count=len(refs),
        )
        messages.append(described)
    return [Heard(message=message, received=time) for message in messages]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    yield store
    store.close()


def test_a_batch_reads_by_the_node_and_writes_by_the_table(store: Store) -> None:
    question = NodeQueried(id="q", time=NOW, details=("sites", "refs", "history"))
    costs = []
    for nodes in (10, 40):
        with _statements() as done:
            store.apply(_answers(nodes, attrs.evolve(question, id=f"q{nodes}"), nodes))
        costs.append(sum(not sql.startswith(("BEGIN", "PRAGMA")) for sql, _ in done))
    # Of a node: itself, its sites, its refs, its operations. Not one for each of 4 sites, 12 refs and 8 operations.
    assert (costs[1] - costs[0]) / 30 <= 4.5


def test_a_description_that_says_nothing_new_writes_only_that_it_was_heard(store: Store) -> None:
    question = NodeQueried(id="q", time=NOW, details=("sites", "refs", "history"))
    store.apply(_answers(10, question, 1))
    with _statements() as done:
        store.apply(_answers(10, attrs.evolve(question, id="r"), 2))
    written = Counter(sql.split()[2] for sql, _ in done if sql.startswith(("INSERT", "DELETE")))
    updated = [sql for sql, _ in done if sql.startswith("UPDATE")]
    assert set(written) <= {"nodes", "site_nodes", "questions"}
    assert not updated


def test_no_question_reads_a_large_table_whole(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    queries = world_queries(store)
    with _statements() as asked:
        queries.sites(EVERYBODY)
        queries.problems(EVERYBODY)
        queries.changes(EVERYBODY)
        queries.site_nodes(EVERYBODY, "shop", _PAGE)
        queries.node(EVERYBODY, "web1")
        queries.nodes(EVERYBODY, _PAGE)
        queries.refs(EVERYBODY, "team/shop", _PAGE)
        queries.history(EVERYBODY, "shop", "", _PAGE)
        queries.history(EVERYBODY, "", "web1", _PAGE)
        queries.operation(EVERYBODY, "shop", "web1:3")
        queries.audit(EVERYBODY, "shop", _PAGE)
        queries.node_mirrors(EVERYBODY, "web1", _PAGE)
    whole = []
    with store.reading() as connection:
        for sql, values in asked:
            if sql.startswith("SELECT"):
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
                steps = [str(step[-1]) for step in plan]
                whole += [
                    (step, sql)
                    for step in steps
                    for table in _LARGE
                    # The newest of all is read along an index, and ends with the page.
                    if step.startswith(f"SCAN {table}")
                    and (f"USING INDEX {table}_at" not in step or " WHERE " in sql.replace("\n", " "))
                ]
    store.close()
    assert len(asked) > 20
    assert not whole


@pytest.mark.parametrize("seed", range(3))
def test_forms_of_refs_are_counted_as_nodes_hold_them(tmp_path: Path, seed: int) -> None:
    store = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    shuffled = [*heard_messages(), *heard_messages()]
    random.Random(seed).shuffle(shuffled)
    for at in range(0, len(shuffled), 7):
        store.apply(shuffled[at : at + 7])
        _check_forms(store)
    while store.prune(NOW + timedelta(days=91)):
        pass
    assert _check_forms(store) == 0
    store.close()


def _check_forms(store: Store) -> int:
    """Compare what is counted with the rows; return how many forms there are."""
    form = 'repo, key, "commit", object'
    with store.reading() as connection:
        counted = connection.execute(text(f"SELECT {form}, at, ref, nodes FROM ref_forms")).all()
        held = connection.execute(
            text(f"SELECT {form}, coalesce(at, {NO_AGE}), ref, count(*) FROM node_refs GROUP BY 1, 2, 3, 4, 5, 6")
        ).all()
    assert sorted(map(tuple, counted)) == sorted(map(tuple, held))
    return len(counted)


def test_who_looks_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    queries = world_queries(store)
    before = queries.sites(EVERYBODY)
    store.apply(heard_messages())
    looked: list[object] = []
    with store._writing:  # as while a long batch is folded
        store._touched.add("shop")
        reader = threading.Thread(target=lambda: looked.append(queries.sites(EVERYBODY)), daemon=True)
        reader.start()
        reader.join(20)
        assert not reader.is_alive()
    assert looked == [before]
    store.settle()
    store.close()
