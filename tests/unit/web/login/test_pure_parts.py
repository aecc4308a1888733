"""The parts of the login that are pure: where to go next, limits, sessions, who sent a request."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploykit.web.login.credentials import basic_login
from deploykit.web.login.forms import safe_next
from deploykit.web.login.hosts import HostRule
from deploykit.web.login.limits import MOST_KEYS, NAME, NAME_AT_PEER, PEER, Allowance, KeyedLimit, LoginLimits
from deploykit.web.login.sessions import MOST_OF_ONE, SessionStore
from tests.support.ledgers import ledger_in
from tests.support.loginworld import Clock

HOSTILE = st.text(alphabet=st.sampled_from("/\\:@.?#%\t\n\r ae\x00é"), max_size=12)


@pytest.mark.parametrize("path", ["/", "/sites/a%20b?x=1&y=/c", "/deploys/1#log", "/refs/group/repo"])
def test_a_path_of_ours_is_where_one_goes_next(path: str) -> None:
    assert safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "sites", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "https://evil.example/", "javascript:alert(1)", "/login", "/login?next=/", "/logout", "/a\nb", "/a b",
        "/" + "x" * 3000, "/%5c\\evil", "/é",
    ],
)  # fmt: skip
def test_anything_else_is_the_first_page(path: str) -> None:
    assert safe_next(path) == "/"


@given(path=HOSTILE)
@example(path="/\t//evil.example")
def test_no_path_leads_to_another_host(path: str) -> None:
    there = safe_next(path)
    # Browsers take a backslash for a slash, and drop tabs and line ends.
    seen = there.replace("\\", "/").replace("\t", "").replace("\n", "").replace("\r", "")
    assert urlsplit(urljoin("https://console.example/login", seen)).netloc == "console.example"


@settings(max_examples=40)
@given(values=st.lists(st.text(max_size=40), max_size=3), site=st.lists(st.text(max_size=12), max_size=2))
def test_no_host_or_origin_is_an_error(values: list[str], site: list[str]) -> None:
    for url in ("", "https://deploy.example", "http://[::1]:8470"):
        rule = HostRule.of(url)
        assert rule.takes(values) in (True, False)
        rule.sender(host="deploy.example", sites=site, origins=values)


def test_an_origin_has_the_scheme_of_the_url() -> None:
    rule = HostRule.of("https://deploy.example")
    assert rule.sender(host="deploy.example", sites=[], origins=["https://deploy.example"]) == "own"
    assert rule.sender(host="deploy.example", sites=[], origins=["https://deploy.example:443"]) == "own"
    assert rule.sender(host="deploy.example", sites=[], origins=["http://deploy.example"]) == "foreign"
    six = HostRule.of("http://[::1]:8470")
    assert six.takes(["[::1]:8470"])
    assert six.sender(host="[::1]:8470", sites=[], origins=["http://[::1]:8470"]) == "own"


@given(value=st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: f"Basic {raw!r}"))
def test_no_authorization_is_an_error(value: str) -> None:
    basic_login([value])


def test_whoever_tries_a_name_from_many_peers_does_not_lock_its_owner_out() -> None:
    clock = Clock()
    limits = LoginLimits(clock=clock)
    assert limits.attempt("ann", "home") == 0
    limits.succeeded("ann", "home")
    waits = [limits.attempt("ann", f"peer{n}") for n in range(NAME.burst + 5)]
    assert waits[NAME.burst - 1] == 0
    assert waits[NAME.burst] > 0, "from other peers the name is limited"
    assert limits.attempt("ann", "home") == 0


def test_a_limit_gives_one_more_after_its_time() -> None:
    limit = KeyedLimit(PEER)
    for _ in range(PEER.burst):
        assert limit.wait("x", 0) == 0
        limit.take("x", 0)
    assert limit.wait("x", 0) == PEER.seconds
    assert limit.wait("x", PEER.seconds) == 0
    assert limit.wait("y", 0) == 0


def test_limits_do_not_grow_without_end() -> None:
    limit = KeyedLimit(PEER, most=100)
    for number in range(1000):
        limit.take(number, 0)
    assert len(limit) == 100
    assert MOST_KEYS <= 10_000
    limits = LoginLimits(clock=Clock())
    for number in range(MOST_KEYS + 10):
        limits.succeeded("ann", f"peer{number}")
    assert len(limits._known) == MOST_KEYS


def test_a_name_as_long_as_a_form_may_be_takes_no_more_memory_than_another() -> None:
    limits = LoginLimits(clock=Clock())
    for peer in range(20):
        limits.attempt("a" * 60_000, str(peer))
        limits.succeeded("b" * 60_000, str(peer))
    assert len(repr((limits._pairs._whole_at, limits._names._whole_at, limits._known))) < 40_000


@pytest.mark.parametrize("allowance", [NAME_AT_PEER, NAME])
def test_a_password_cannot_be_guessed_within_a_day(allowance: Allowance) -> None:
    assert allowance.burst <= 60
    assert allowance.burst + 86_400 / allowance.seconds < 10_000


def test_sessions_do_not_grow_without_end(tmp_path: Path) -> None:
    store = SessionStore(ledger_in(tmp_path).sessions, 3600, clock=Clock())
    first = store.begin("ann", login="password", proof="proof")
    ids = [store.begin("ann", login="password", proof="proof") for _ in range(MOST_OF_ONE)]
    assert store.find(first) is None
    assert all(store.find(id_) for id_ in ids)
    assert len(store.list_of("ann")) == MOST_OF_ONE
    assert store.end_all_of("ann", but=_key(store, ids[0])) == MOST_OF_ONE - 1
    assert store.find(ids[0]) is not None


def _key(store: SessionStore, id_: str) -> str:
    found = store.find(id_)
    assert found is not None
    return found.key


def test_ids_and_tokens_are_long_and_differ(tmp_path: Path) -> None:
    store = SessionStore(ledger_in(tmp_path).sessions, 3600, clock=Clock())
    ids = [store.begin("ann", login="password", proof="proof") for _ in range(40)]
    made = [session for session in map(store.find, ids) if session is not None]
    values = {*ids, *(session.token for session in made), *(session.key for session in made)}
    assert len(values) == 120
    assert min(map(len, values)) >= 43
