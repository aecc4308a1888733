"""The console's projection with a large fleet: folding, comparing, asking.

python -m tests.benchmarks.bench_projection [--nodes 1000] [--sites 20] [--postgresql]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from deploykit.messages import (
    DeployProgressed,
    DeployReported,
    DeployRequested,
    HeldRef,
    Message,
    NodeDescribed,
    NodeDetail,
    NodeQueried,
    ProgressState,
    RolloutReported,
    SiteOperation,
    SiteRelease,
    SiteState,
)
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.postgres import running_postgres
from tests.support.webworld import NOW, healthy

_V1, _V2 = RefName("refs/tags/v1"), RefName("refs/tags/v2")
_C1, _C2 = ObjectId("1" * 40), ObjectId("2" * 40)


def descriptions(nodes: int, sites: int, minutes: float, listed: int = 4) -> Iterator[Message]:
    """Yield the answers of all nodes to one question; each lists so many operations and refs of each site.

    An answer has at most 64 KiB: with 20 sites it lists about four of each.
    """
    time_ = NOW - timedelta(minutes=minutes)
    details: tuple[NodeDetail, ...] = ("facts", "sites", "refs", "history", "drift")
    question = NodeQueried(id=f"q{minutes}", time=time_, details=details)
    yield question
    for at in range(nodes):
        node = NodeName(f"node{at:04}")
        states = []
        for site in range(sites):
            history = tuple(
                SiteOperation(
                    number=number,
                    phase="deploy",
                    outcome="success",
                    release=f"r{number}",
                    ref=_V1,
                    commit=_C1,
                    requested_by="ann",
                    finished=NOW - timedelta(days=30 - number),
                )
                for number in range(20, 20 - listed, -1)
            )
            states.append(
                SiteState(
                    site=SiteName(f"site{site:02}"),
                    repo=RepoName(f"repo{site:02}"),
                    release="r20",
                    ref=_V1 if at % 10 else _V2,
                    commit=_C1 if at % 10 else _C2,
                    since=NOW - timedelta(days=3),
                    previous=SiteRelease(release="r19", ref=_V1, commit=_C1),
                    last=history[0],
                    modified=0,
                    history=history,
                )
            )
        refs = tuple(
            HeldRef(
                repo=RepoName(f"repo{site:02}"),
                ref=RefName(f"refs/tags/v{number}"),
                commit=(_C1, _C2, ObjectId(f"{number:040}"))[min(number - 1, 2)],
                time=NOW - timedelta(days=40 - number),
            )
            for site in range(sites)
            for number in range(1, 1 + listed)
        )
        yield NodeDescribed(
            time=time_ + timedelta(milliseconds=at),
            source=f"agent/{node}",
            node=node,
            request=question.id,
            facts={"os": "debian", "cores": 8},
            sites=tuple(states),
            refs=refs,
            refs_count=len(refs),
        )


def rollout(nodes: int) -> Iterator[Message]:
    """Yield what is heard of a rollout to all nodes of one site: 14 messages a node."""
    site = SiteName("site00")
    at = NOW - timedelta(minutes=1)
    for number in range(nodes):
        node, request = NodeName(f"node{number:04}"), f"c{number}"
        if number % 20 == 0:
            counts = {"active": number, "pending": nodes - number}
            yield RolloutReported(
                time=at, site=site, rollout="big", kind="deploy", ref=_V2, commit=_C2, state="rolling", nodes=counts
            )
        yield DeployRequested(
            id=request, time=at, site=site, ref=_V2, commit=_C2, audience=(node,), expires=NOW, rollout="big"
        )
        for step in range(12):
            states: tuple[ProgressState, ...] = ("began", "output", "done")
            state = states[step % 3]
            yield DeployProgressed(
                time=at + timedelta(milliseconds=step),
                node=node,
                site=site,
                request=request,
                rollout="big",
                phase="deploy",
                number=step,
                step=f"step{step // 3}",
                state=state,
                output="a line of output\n" * 10 if state == "output" else "",
            )
        release = SiteRelease(release="r21", ref=_V2, commit=_C2)
        yield DeployReported(
            time=at + timedelta(seconds=1),
            node=node,
            site=site,
            request=request,
            phase="deploy",
            outcome="success",
            ref=_V2,
            commit=_C2,
            release="r21",
            live_known=True,
            target=release,
        )


def _applied(store: Store, messages: list[Message], batch: int) -> tuple[float, float]:
    """Apply messages in batches; return CPU and wall seconds."""
    heard = [Heard(message=message, received=NOW, signer="bench") for message in messages]
    cpu, wall = time.process_time(), time.monotonic()
    for at in range(0, len(heard), batch):
        store.apply(heard[at : at + batch])
    return time.process_time() - cpu, time.monotonic() - wall


def _asked(ask: Callable[[], object], times: int = 20) -> tuple[float, float]:
    """Ask often; return the median and the longest time, in milliseconds."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        ask()
        found.append((time.monotonic() - began) * 1000)
    return statistics.median(found), max(found)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_postgres()) if options.postgresql else ""
        store = Store.open(WebSettings(database=url), state, now=lambda: NOW)
        stack.callback(store.close)
        for name, minutes in (("first descriptions", 20.0), ("the same again", 10.0)):
            messages = list(descriptions(options.nodes, options.sites, minutes))
            cpu, wall = _applied(store, messages, 50)
            print(f"{name}: {len(messages)} in {wall:.1f} s, {cpu:.1f} s CPU, {cpu / len(messages) * 1000:.2f} ms each")
        messages = list(rollout(options.nodes))
        cpu, wall = _applied(store, messages, 15)  # 50 ms of 300 messages a second
        share = cpu / (len(messages) / 300)
        print(f"rollout: {len(messages)} in {wall:.1f} s, {cpu:.1f} s CPU; at 300/s {share:.0%} of a core")
        queries, page = store.queries(healthy), PageRequested()
        asks: dict[str, Callable[[], object]] = {
            "sites": lambda: queries.sites(EVERYBODY),
            "problems": lambda: queries.problems(EVERYBODY),
            "changes": lambda: queries.changes(EVERYBODY),
            "site_nodes": lambda: queries.site_nodes(EVERYBODY, "site01", page),
            "nodes": lambda: queries.nodes(EVERYBODY, page),
            "refs": lambda: queries.refs(EVERYBODY, "repo01", page),
            "rollout": lambda: queries.rollout(EVERYBODY, "big", page),
            "history": lambda: queries.history(EVERYBODY, "site01", "", page),
            "history of all": lambda: queries.history(EVERYBODY, "", "", page),
            "repositories": lambda: queries.repositories(EVERYBODY),
        }
        for name, ask in asks.items():
            print("{}: median {:.1f} ms, longest {:.1f} ms".format(name, *_asked(ask)))
        began = time.monotonic()
        steps = 0
        while store.prune(NOW + timedelta(days=91)):
            steps += 1
        print(f"prune of everything: {time.monotonic() - began:.1f} s in {steps} steps")
        print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
