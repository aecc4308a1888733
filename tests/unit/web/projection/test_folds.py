"""Messages that come late, twice, in the wrong order, or with another's id: what they may change, and what not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.messages import (
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    HeldRef,
    Message,
    MirrorUpdated,
    NodeDescribed,
    NodeQueried,
    RolloutReported,
    SiteLocked,
    SiteRelease,
    SiteState,
    SiteUnlocked,
    StepReport,
)
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.activityqueries import LISTED_REFS
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.webworld import NOW, WebWorld, world_queries

_ALL = PageRequested(limit=500)
_SHOP, _DOCS, _REPO = SiteName("shop"), SiteName("docs"), RepoName("team/shop")
_WEB1, _WEB2 = NodeName("web1"), NodeName("web2")
_V1, _V2 = RefName("refs/tags/v1"), RefName("refs/tags/v2")
_C1, _C2, _TAG = (ObjectId(digit * 40) for digit in "12a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def _apply(store: Store, *messages: Message) -> Queries:
    store.apply([Heard(message=each, received=NOW + timedelta(hours=1), signer="ann") for each in messages])
    return world_queries(store)


def _command(**fields: Any) -> DeployRequested:
    values: dict[str, Any] = {"id": "c1", "site": _SHOP, "ref": _V2, "commit": _C2, "audience": (_WEB1,)} | fields
    values.setdefault("rollout", "r")
    return DeployRequested(time=NOW, expires=NOW, requested_by="ann", **values)


def _progress(number: int, **fields: Any) -> DeployProgressed:
    values: dict[str, Any] = {"node": _WEB1, "site": _SHOP, "request": "c1", "rollout": "r", "phase": "deploy"}
    values |= {"number": number, "step": "export", "state": "began", "time": NOW + timedelta(seconds=1 + number)}
    return DeployProgressed(**({"id": f"p{number}"} | values | fields))


def _report(**fields: Any) -> DeployReported:
    values: dict[str, Any] = {"node": _WEB1, "site": _SHOP, "request": "c1", "phase": "deploy", "outcome": "success"}
    made = SiteRelease(release="v2-2", ref=_V2, commit=_C2)
    values |= {"ref": _V2, "commit": _C2, "release": "v2-2", "live_known": True, "target": made}
    values |= {"steps": (StepReport(name="export", outcome="done", seconds=1.0),), "time": NOW + timedelta(seconds=9)}
    return DeployReported(**({"id": "report"} | values | fields))


def _announced(state: Any, second: int, **fields: Any) -> RolloutReported:
    values: dict[str, Any] = {"site": _SHOP, "rollout": "r", "kind": "deploy", "ref": _V2, "commit": _C2}
    return RolloutReported(id=f"a{second}", time=NOW + timedelta(seconds=second), state=state, **(values | fields))


def _described(second: float, **fields: Any) -> NodeDescribed:
    values: dict[str, Any] = {"node": _WEB1, "time": NOW + timedelta(seconds=second)}
    return NodeDescribed(id=f"d{second}", **(values | fields))


def _state(**fields: Any) -> SiteState:
    values: dict[str, Any] = {"site": _SHOP, "repo": _REPO, "release": "v1-1", "ref": _V1, "commit": _C1}
    return SiteState(**(values | fields))


def test_a_rollout_is_the_same_in_whatever_order_its_messages_come(tmp_path: Path) -> None:
    messages: Sequence[Message] = (
        _announced("canary", 0),
        _command(),
        _progress(0),
        _progress(1, state="done", seconds=1.0),
        _report(),
    )
    seen = set()
    for at, order in enumerate(itertools.permutations(messages)):
        if at % 11:
            continue  # a sample: each makes a database
        store = Store.open(WebSettings(), tmp_path / str(at), now=lambda: NOW)
        queries = _apply(store, *order)
        detail = queries.rollout(EVERYBODY, "r", _ALL)
        assert detail is not None
        (node,) = detail.nodes.items
        steps = tuple((step.name, step.state, step.seconds) for step in node.steps)
        rollouts = tuple(each.rollout for each in queries.rollouts(EVERYBODY, "", _ALL).items)
        (history,) = queries.history(EVERYBODY, "shop", "", _ALL).items
        seen.add((rollouts, detail.summary.state, detail.summary.began, node.state, steps, history.outcome))
        store.close()
    assert seen == {(("r",), "canary", NOW, "success", (("export", "done", 1.0),), "success")}


def test_each_phase_of_a_rollout_keeps_the_steps_of_its_newest_command_in_whatever_order_they_come(
    tmp_path: Path,
) -> None:
    def prepare(number: int, **fields: Any) -> DeployProgressed:
        return _progress(number, phase="prepare", **fields)

    def activate(number: int, **fields: Any) -> DeployProgressed:
        times = {"time": NOW + timedelta(seconds=20 + number)}
        return _progress(number, phase="activate", request="c2", **times, **({"id": f"q{number}"} | fields))

    fetched = (StepReport(name="export", outcome="done", seconds=1.0), StepReport(name="pre-link", outcome="skipped"))
    messages: Sequence[Message] = (
        _command(phase="prepare"),
        prepare(0),
        _report(phase="prepare", steps=fetched),
        _command(id="c2", phase="activate"),
        activate(0, step="activate"),
        activate(1, step="activate", state="done", seconds=2.0),
    )
    seen = set()
    for at, order in enumerate(itertools.permutations(messages)):
        if at % 37:
            continue  # a sample: each makes a database
        store = Store.open(WebSettings(), tmp_path / str(at), now=lambda: NOW)
        detail = _apply(store, *order).rollout(EVERYBODY, "r", _ALL)
        assert detail is not None
        (node,) = detail.nodes.items
        seen.add((node.state, node.phase, tuple((step.phase, step.name, step.state) for step in node.steps)))
        store.close()
    prepared = (("prepare", "export", "done"), ("prepare", "pre-link", "skipped"))
    assert seen == {("began", "activate", (*prepared, ("activate", "activate", "done")))}


def test_the_log_of_a_command_whose_rollout_is_known_only_later_goes_behind_what_is_there(store: Store) -> None:
    """Both logs begin with line 0."""
    step = StepReport(name="export", outcome="done", seconds=1.0, output="exported\n", exit_code=0)
    queries = _apply(
        store,
        _progress(0, phase="activate", request="c2", step="check", state="output", output="checked\nhalf"),
        _report(phase="prepare", steps=(step,)),
        _command(phase="prepare"),
        _progress(1, phase="activate", request="c2", step="check", state="output", output=" and half\n"),
    )
    log = queries.log(EVERYBODY, "r", "web1", 0, 100)
    assert log is not None
    shown = [line for line in log.lines if not line.startswith("---")]
    assert shown == ["checked", "half", "exported", " and half"]
    assert [each.rollout for each in queries.rollouts(EVERYBODY, "", _ALL).items] == ["r"]


def test_a_phase_that_is_asked_for_again_begins_anew_and_what_is_late_of_the_old_one_counts_no_more(
    store: Store,
) -> None:
    queries = _apply(
        store,
        _progress(0, step="one"),
        _progress(1, step="one", state="failed"),
        _progress(0, id="again", step="other", request="c9", time=NOW + timedelta(seconds=60)),
        _progress(2, step="late"),
        _report(steps=(StepReport(name="old", outcome="done"),)),
    )
    detail = queries.rollout(EVERYBODY, "r", _ALL)
    assert detail is not None
    (node,) = detail.nodes.items
    assert [(step.name, step.state) for step in node.steps] == [("other", "began")]


def test_what_comes_after_a_report_changes_no_step(store: Store) -> None:
    queries = _apply(store, _report(), _progress(7, step="export", state="failed"), _progress(8, step="ghost"))
    detail = queries.rollout(EVERYBODY, "c1", _ALL)
    assert detail is not None
    assert [(step.name, step.state) for step in detail.nodes.items[0].steps] == [("export", "done")]


def test_the_end_of_a_rollout_is_not_taken_back_by_an_older_announcement(store: Store) -> None:
    queries = _apply(store, _announced("succeeded", 9, nodes={"active": 1}), _announced("rolling", 5))
    (rollout,) = queries.rollouts(EVERYBODY, "", _ALL).items
    assert (rollout.state, dict(rollout.counts)) == ("succeeded", {"active": 1})
    assert rollout.ended is not None


def test_a_message_with_the_id_of_another_sites_rollout_changes_nothing(store: Store) -> None:
    queries = _apply(store, _announced("rolling", 0), _command())
    before = queries.rollout(EVERYBODY, "r", _ALL)
    _apply(
        store,
        _announced("failed", 5, site=_DOCS),
        _command(id="c2", site=_DOCS),
        _progress(0, site=_DOCS, request="c3"),
        _report(site=_DOCS),
    )
    assert queries.rollout(EVERYBODY, "r", _ALL) == before
    docs_only = Viewer(name="dora", grants=(RoleGrant(sites="docs", role="look"),))
    assert queries.rollout(docs_only, "r", _ALL) is None
    assert queries.log(docs_only, "r", _WEB1, 0, 10) is None


def test_a_command_that_a_node_refuses_is_in_the_audit(store: Store) -> None:
    queries = _apply(store, _command(rollout=None), _report(outcome="refused", detail="not granted", live_known=False))
    refused, asked = queries.audit(EVERYBODY, "shop", _ALL).items
    assert (refused.decision, refused.where, refused.who, refused.detail) == ("refused", "web1", "ann", "not granted")
    assert (asked.action, asked.decision, asked.signer) == ("deploy", "asked", "ann")
    (rollout,) = queries.rollouts(EVERYBODY, "", _ALL).items
    assert (rollout.rollout, rollout.state, rollout.failed) == ("c1", "failed", ("web1",))
    assert queries.history(EVERYBODY, "shop", "", _ALL).items == ()


def test_a_report_says_what_is_live_before_the_node_describes_itself(store: Store) -> None:
    queries = _apply(store, _described(0, sites=(_state(),)), _command(), _report())
    (site,) = queries.site_nodes(EVERYBODY, "shop", _ALL).items
    assert (site.release, site.ref, site.by, site.rollout) == ("v2-2", _V2, "ann, signed ann", "r")
    _apply(store, _described(5, sites=(_state(),)))  # older than the report
    (site,) = queries.site_nodes(EVERYBODY, "shop", _ALL).items
    assert site.release == "v2-2"


def test_an_answer_removes_only_what_was_asked_for(store: Store) -> None:
    held = HeldRef(repo=_REPO, ref=_V1, commit=_C1)
    queries = _apply(
        store,
        NodeQueried(id="q1", time=NOW, details=("facts", "sites", "refs")),
        _described(1, request="q1", sites=(_state(),), refs=(held,), refs_count=1, facts={"os": "debian"}),
        NodeQueried(id="q2", time=NOW, details=("facts",)),
        _described(2, request="q2", facts={"os": "trixie"}),
        _described(3, request="a question that was not heard"),
    )
    node = queries.node(EVERYBODY, "web1")
    assert node is not None
    assert dict(node.facts) == {"os": "trixie"}
    assert [site.site for site in node.sites] == ["shop"]
    assert [ref.ref for ref in queries.refs(EVERYBODY, _REPO, _ALL).items] == [_V1]
    _apply(store, NodeQueried(id="q3", time=NOW, details=("refs",)), _described(4, request="q3"), _described(5))
    node = queries.node(EVERYBODY, "web1")
    assert node is not None
    assert node.sites == ()
    assert queries.refs(EVERYBODY, _REPO, _ALL).items == ()
    assert queries.repositories(EVERYBODY) == (_REPO,)


def test_a_tag_of_which_only_the_object_is_known_is_not_missing_elsewhere(store: Store) -> None:
    fetched = MirrorUpdated(
        time=NOW + timedelta(seconds=5), node=_WEB2, repo=_REPO, ref=_V1, old=ZERO_ID, new=_TAG, outcome="updated"
    )
    held = HeldRef(repo=_REPO, ref=_V1, commit=_C1, time=NOW)
    queries = _apply(store, _described(1, refs=(held,), refs_count=1, sites=(_state(),)), fetched)
    (ref,) = queries.refs(EVERYBODY, _REPO, _ALL).items
    assert (ref.commit, ref.holders, ref.expected, ref.missing) == (_C1, 2, 2, ())
    _apply(
        store,
        attrs.evolve(fetched, node=_WEB1, id="again"),
        attrs.evolve(fetched, new=_C2, id="moved", time=NOW + timedelta(seconds=9)),
    )
    (ref,) = queries.refs(EVERYBODY, _REPO, _ALL).items
    assert (ref.holders, ref.missing) != (2, ()), "web1 names both, so another object is another tag"


def test_a_node_lacks_only_what_it_would_have_listed(store: Store) -> None:
    def tag(number: int) -> HeldRef:
        return HeldRef(repo=_REPO, ref=RefName(f"refs/tags/v{number}"), commit=_C1, time=NOW + timedelta(hours=number))

    def missing() -> dict[str, tuple[str, ...]]:
        refs = queries.refs(EVERYBODY, _REPO, PageRequested(limit=200)).items
        assert all(ref.everywhere == (not ref.missing) for ref in refs)
        return {ref.ref: ref.missing for ref in refs if ref.missing}

    def listed(node: NodeName, second: int, refs: Iterable[HeldRef], count: int) -> NodeDescribed:
        described = _described(second, request="q", refs=tuple(refs), refs_count=count, sites=(_state(),))
        return attrs.evolve(described, node=node, id=f"{node}-{second}")

    many = [tag(number) for number in range(LISTED_REFS + 5)]
    asked = NodeQueried(id="q", time=NOW, details=("refs", "sites"), refs_limit=LISTED_REFS)
    unasked = attrs.evolve(_described(1, sites=(_state(),)), node=_WEB2)
    queries = _apply(store, asked, listed(_WEB1, 1, many[:3], 3), unasked)
    assert missing() == {}, "web2 mirrors it, and was not asked for its refs yet"
    _apply(store, listed(_WEB2, 2, many[1:3], 2))
    assert missing() == {"refs/tags/v0": ("web2",)}
    _apply(store, listed(_WEB2, 3, many[5:], len(many)))
    assert set(missing()) == {f"refs/tags/v{number}" for number in range(5, len(many))}, "web1 listed all it has"
    assert set(missing().values()) == {("web1",)}, "web2 may hold what is older than its list"


def test_a_tag_that_was_just_fetched_counts_as_held(store: Store) -> None:
    def fetched(node: NodeName, second: int) -> MirrorUpdated:
        time = NOW + timedelta(seconds=second)
        return MirrorUpdated(time=time, node=node, repo=_REPO, ref=_V1, old=ZERO_ID, new=_TAG, outcome="updated")

    held = HeldRef(repo=_REPO, ref=_V1, commit=_C1, time=NOW)
    queries = _apply(
        store, fetched(_WEB1, 1), fetched(_WEB2, 1), _described(2, refs=(held,), refs_count=1, sites=(_state(),))
    )
    (ref,) = queries.refs(EVERYBODY, _REPO, _ALL).items
    assert (ref.commit, ref.holders, ref.expected, ref.missing) == (_C1, 2, 2, ())
    _apply(store, attrs.evolve(fetched(_WEB2, 5), new=_C2))
    (ref,) = queries.refs(EVERYBODY, _REPO, _ALL).items
    assert (ref.holders, ref.expected) == (1, 2)
    assert len(ref.missing) == 1


def test_a_ref_that_is_gone_is_not_listed(store: Store) -> None:
    def fetched(new: ObjectId, second: int) -> MirrorUpdated:
        time = NOW + timedelta(seconds=second)
        return MirrorUpdated(time=time, node=_WEB1, repo=_REPO, ref=_V1, old=_C1, new=new, outcome="updated")

    queries = _apply(store, fetched(_C1, 1), fetched(ZERO_ID, 2))
    assert queries.refs(EVERYBODY, _REPO, _ALL).items == ()
    (mirror,) = queries.node_mirrors(EVERYBODY, "web1", _ALL).items
    assert mirror.commit == ""


def test_a_build_is_one_row_from_its_request_to_its_end(store: Store) -> None:
    values: dict[str, Any] = {"job": "test", "repo": _REPO, "ref": _V1, "commit": _C1, "correlation_id": "push"}
    messages = (
        BuildRequested(id="b1", time=NOW, **values),
        BuildStarted(id="b2", time=NOW + timedelta(seconds=1), number=7, **values),
        BuildFinished(id="b3", time=NOW + timedelta(seconds=2), number=7, outcome="failure", **values),
    )
    queries = world_queries(store)
    states = []
    for message in messages:
        _apply(store, message)
        (build,) = queries.builds(EVERYBODY, "", _ALL).items
        states.append(build.state)
    assert states == ["requested", "started", "failure"]
    _apply(store, *messages)
    (build,) = queries.builds(EVERYBODY, "", _ALL).items
    assert (build.state, build.number, build.signer) == ("failure", "7", "ann")


def test_the_newest_statement_on_a_lock_counts_in_whatever_order_they_come(store: Store) -> None:
    until = NOW + timedelta(days=1)
    locked = SiteLocked(time=NOW, site=_SHOP, serial=1, holder="ann", until=until)
    unlocked = SiteUnlocked(time=NOW + timedelta(seconds=1), site=_SHOP, serial=2, holder="ann")
    again = SiteLocked(time=NOW + timedelta(seconds=2), site=_SHOP, serial=3, holder="ben", until=until)
    queries = _apply(store, unlocked, locked)
    site = queries.site(EVERYBODY, "shop")
    assert site is not None
    assert site.lock is None
    _apply(store, again, unlocked)
    site = queries.site(EVERYBODY, "shop")
    assert site is not None
    assert site.lock is not None
    assert site.lock.holder == "ben"


def test_a_lock_that_only_a_node_shows_is_shown_and_ends_by_itself(tmp_path: Path) -> None:
    clock = [NOW]
    store = Store.open(WebSettings(), tmp_path, now=lambda: clock[0])
    world = WebWorld()
    lock = SiteLocked(time=NOW, site=_SHOP, serial=1, holder="cleo", until=NOW + timedelta(hours=2))
    store.apply([Heard(message=_described(0, sites=(_state(lock=world.signed(lock)),)), received=NOW)])
    queries = world_queries(store)
    site = queries.site(EVERYBODY, "shop")
    assert site is not None
    assert site.lock is not None
    assert site.lock.holder == "cleo"
    clock[0] = NOW + timedelta(hours=3)
    site = queries.site(EVERYBODY, "shop")
    assert site is not None
    assert site.lock is None
    store.close()


def test_a_clock_that_is_ahead_does_not_keep_a_push_on_top(store: Store) -> None:
    world = WebWorld()
    first, second = list(world.pushes())[:2]
    ahead = attrs.evolve(first, time=NOW + timedelta(days=3650))
    store.apply([Heard(message=ahead, received=NOW - timedelta(days=1)), Heard(message=second, received=NOW)])
    pushes = world_queries(store).pushes(EVERYBODY, "", _ALL).items
    assert [push.id for push in pushes] == [second.id, first.id]
