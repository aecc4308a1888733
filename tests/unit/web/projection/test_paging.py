"""Pages of lists: each row once, whatever a reader asks for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.messages import Notice
from deploykit.settings.web import WebSettings
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.paging import read_cursor, write_cursor
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import NOW, world_queries, world_store


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queries]:
    """A hostile world."""
    store = world_store(tmp_path_factory.mktemp("hostile"), hostile=True)
    yield world_queries(store)
    store.close()


def test_pages_hold_each_row_once_while_new_ones_come(tmp_path: Path) -> None:
    store = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    same_time = [Notice(id=f"n{at}", time=NOW, text=str(at)) for at in range(25)]
    store.apply([Heard(message=each, received=NOW) for each in same_time])
    queries = world_queries(store)
    found: list[str] = []
    page = PageRequested(limit=4)
    while True:
        answer = queries.notices(EVERYBODY, page)
        found += [each.text for each in answer.items]
        late = Notice(time=NOW + timedelta(seconds=1), text="late")
        store.apply([Heard(message=late, received=NOW + timedelta(seconds=2))])
        if not answer.next:
            break
        page = PageRequested(limit=4, after=answer.next)
    assert sorted(found, key=int) == [str(at) for at in range(25)]
    store.close()


@given(text=st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_a_cursor_of_any_text_is_the_first_page_or_values_of_the_right_types(text: str) -> None:
    found = read_cursor(text, (int, str))
    assert found is None or (type(found[0]) is int and type(found[1]) is str)


@given(
    st.integers(min_value=-(2**62), max_value=2**62),
    st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])),
)
def test_a_cursor_is_read_as_it_was_written(number: int, text: str) -> None:
    assert read_cursor(write_cursor((number, text)), (int, str)) == (number, text)


_CURSORS = ("", "x", "ÿ", write_cursor((1,)), write_cursor(("a", "b")), write_cursor((2**70, "x")), "[" * 400, "W10")
_SEARCHES = ("", "%", "_", "\\", "'; DROP TABLE pushes; --", "\x00", "ß", "<script>")


@pytest.mark.parametrize(("after", "search"), list(zip(_CURSORS, _SEARCHES, strict=True)))
@pytest.mark.parametrize("text", ["", "shop", "'", "\x00", "x" * 300])
def test_whatever_is_asked_for_is_answered(queries: Queries, after: str, search: str, text: str) -> None:
    page = PageRequested(after=after, limit=-3 if search == "%" else 10**9, search=search)
    queries.pushes(EVERYBODY, text, page)
    queries.refs(EVERYBODY, text, page)
    queries.audit(EVERYBODY, text, page)
    queries.history(EVERYBODY, text, text, page)
    queries.site_nodes(EVERYBODY, text, page)
    queries.rollout(EVERYBODY, text, page)
    queries.node_mirrors(EVERYBODY, text, page)
    queries.operation(EVERYBODY, "shop", f"web1:{text}")
    queries.log(EVERYBODY, "rollout-done", "web1", -(10**30), 10**30)
    queries.nodes(EVERYBODY, page)


def test_a_search_takes_its_text_as_it_is(queries: Queries) -> None:
    def found(search: str) -> int:
        return len(queries.pushes(EVERYBODY, "", PageRequested(search=search)).items)

    everything = found("")
    assert found("BASKET") == 3
    assert found("{{7*7}}") == everything
    assert found("_asket") == 0
    assert found("b%t") == 0
