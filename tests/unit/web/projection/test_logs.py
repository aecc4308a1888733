"""What deploys print: in order, whole where the report has it, bounded, and quick to read from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploykit.messages import DeployProgressed, DeployReported, DeployRequested, Message, StepReport
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection import foldlogs
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rolloutviews import LogSlice
from deploykit.web.projection.store import Store
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import NOW, world_queries

_SITE, _NODE = SiteName("shop"), NodeName("web1")
_REF, _COMMIT = RefName("refs/tags/v1"), ObjectId("1" * 40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def _output(number: int, text: str, *, step: str = "build", request: str = "c1", **fields: Any) -> DeployProgressed:
    values: dict[str, Any] = {"state": "output", "output": text} | fields
    return DeployProgressed(
        id=f"{request}/{number}",
        time=NOW + timedelta(seconds=number),
        node=_NODE,
        site=_SITE,
        request=request,
        rollout="r",
        phase="deploy",
        number=number,
        step=step,
        **values,
    )


def _done(number: int, step: str = "build") -> DeployProgressed:
    return _output(number, "", step=step, state="done")


def _report(output: str, *, step: str = "build", request: str = "c1") -> DeployReported:
    return DeployReported(
        time=NOW + timedelta(minutes=1),
        node=_NODE,
        site=_SITE,
        request=request,
        phase="deploy",
        outcome="success",
        steps=(StepReport(name=step, outcome="done", output=output),),
    )


def _apply(store: Store, *messages: Message) -> None:
    store.apply([Heard(message=each, received=NOW + timedelta(hours=1), signer="x") for each in messages])


def _log(store: Store, first: int = 0, limit: int = 5000, rollout: str = "r") -> LogSlice:
    found = world_queries(store).log(EVERYBODY, rollout, _NODE, first, limit)
    assert found is not None
    return found


def test_output_comes_under_the_name_of_its_step(store: Store) -> None:
    _apply(
        store, _output(0, "one\ntw"), _output(1, "o\nthree\n"), _done(2), _output(3, "x", step="test"), _done(4, "test")
    )
    assert _log(store).lines == ("--- build ---", "one", "two", "three", "--- test ---", "x")


def test_an_event_that_comes_twice_counts_once(store: Store) -> None:
    messages = [_output(0, "one\n"), _output(1, "two\n")]
    _apply(store, *messages)
    _apply(store, *messages)
    assert _log(store).lines == ("--- build ---", "one", "two")


def test_what_was_lost_on_the_way_comes_from_the_report(store: Store) -> None:
    _apply(store, _output(0, "one\n"), _output(2, "three\n"), _done(3))
    assert _log(store).lines == ("--- build ---", "one", "three")
    _apply(store, _report("one\ntwo\nthree\n"))
    assert _log(store).lines == ("--- build ---", "one", "two", "three")
    assert not _log(store).open
    _apply(store, _report("one\ntwo\nthree\n"), _output(3, "late\n"))
    assert _log(store).lines == ("--- build ---", "one", "two", "three")


def test_a_report_that_was_cut_takes_nothing_away(store: Store) -> None:
    _apply(store, _output(0, "one\ntwo\nthree\n"), _done(1), _report("three\n"))
    assert _log(store).lines == ("--- build ---", "one", "two", "three")


def test_output_of_which_only_the_report_was_heard_is_shown(store: Store) -> None:
    _apply(store, _report("all\nof it"))
    assert _log(store, rollout="c1").lines == ("--- build ---", "all", "of it")


def test_a_log_stands_under_its_rollout_when_the_command_is_heard_last(store: Store) -> None:
    _apply(store, _report("all\nof it"))
    command = DeployRequested(
        id="c1", time=NOW, site=_SITE, ref=_REF, commit=_COMMIT, audience=(_NODE,), expires=NOW, rollout="r"
    )
    _apply(store, command)
    assert _log(store).lines == ("--- build ---", "all", "of it")
    assert world_queries(store).log(EVERYBODY, "c1", _NODE, 0, 10) is None


def test_a_second_command_of_a_rollout_goes_on_in_the_same_log(store: Store) -> None:
    _apply(store, _output(0, "one\n"), _done(1), _report("one\n"))
    _apply(store, _output(0, "more\n", request="c2"))
    assert _log(store).lines == ("--- build ---", "one", "--- build ---", "more")


def test_any_range_of_a_large_log_can_be_read(store: Store) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    for at in range(0, 20_000, 1000):
        _apply(store, *(_output(n // 100, "\n".join(lines[n : n + 100]) + "\n") for n in range(at, at + 1000, 100)))
    assert _log(store).total == 20_001
    assert _log(store, 777, 3).lines == ("line 776", "line 777", "line 778")
    assert _log(store, -2).lines == ("line 19998", "line 19999")
    assert _log(store, 20_000).lines == ("line 19999",)
    assert _log(store, 30_000).lines == ()
    whole = [line for first in range(0, 20_001, 5000) for line in _log(store, first, 99_999).lines]
    assert whole == ["--- build ---", *lines]


def test_of_too_many_lines_the_first_are_lost_and_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foldlogs, "MOST_LINES", 1000)
    for number in range(30):
        _apply(store, _output(number, "".join(f"{number}.{line}\n" for line in range(100))))
    log = _log(store)
    assert log.total == 3001
    assert log.lost == log.first
    assert 600 <= log.total - log.lost <= 1200
    assert log.lines[-1] == "29.99"
    assert _log(store, 0, 1).lines == (log.lines[0],)


def test_a_rollout_that_prints_too_much_keeps_few_lines_of_each_node(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foldlogs, "ROLLOUT_TEXT", 10_000)
    monkeypatch.setattr(foldlogs, "FEW_LINES", 300)
    for number in range(30):
        _apply(store, _output(number, "".join(f"{number}.{line} {'x' * 50}\n" for line in range(100))))
    log = _log(store)
    assert log.total - log.lost <= 500
    assert log.lines[-1].startswith("29.99 ")


def test_a_line_without_an_end_is_cut_into_lines(store: Store) -> None:
    _apply(store, _output(0, "x" * 30_000), _done(1))
    assert [len(line) for line in _log(store).lines[1:]] == [8192, 8192, 8192, 30_000 - 3 * 8192]


def test_hostile_output_is_kept_as_text(store: Store) -> None:
    _apply(store, _output(0, "a\x00b\x1b[31m\ud800\n"))
    assert _log(store).lines[1] == "a\ufffdb\x1b[31m\ufffd"
