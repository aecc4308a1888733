"""Where a chain may be hit: the stages of one round from push to reports, and who may be killed at each.

idle     nobody has pushed yet; the push happens while the victim is dead
pushed   the hook has returned: the push is in the spool of the origin
asked    the build waits in Jenkins' queue; it leaves the queue while the victim is dead
builds   the build runs; it ends, and signs its result, while the victim is dead
built    the build has ended: its result is in the spool of the build server, or on its way
fetched  every node has the success, and the commit; the command is sent while the victim is dead
deploys  a node's script runs; it ends while the victim is dead
reported a report was heard
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.messages import BuildRequested, DeployReported
from tests.support.chain.world import Chain
from tests.support.wait import wait_until

Stage = Literal["idle", "pushed", "asked", "builds", "built", "fetched", "deploys", "reported"]
#: `agent` is one of the three nodes. Two are no processes: with `answer`, Jenkins' answer to the request for a build is
#: lost; with `sight`, so is the permission to look for the build, which has to be asked for once more.
Victim = Literal["broker", "jenkins", "relay", "trigger", "agent", "answer", "sight"]

STAGES: Final[tuple[Stage, ...]] = ("idle", "pushed", "asked", "builds", "built", "fetched", "deploys", "reported")
KILLED: Final[tuple[Victim, ...]] = ("broker", "jenkins", "relay", "trigger", "agent")


@attrs.frozen
class Hit:
    """One point of the sweep."""

    stage: Stage
    victim: Victim

    def __str__(self) -> str:
        return f"{self.victim} at {self.stage}"


ALL_HITS: Final = (
    *(Hit(stage, victim) for stage, victim in product(STAGES, KILLED)),
    Hit("idle", "answer"),
    Hit("idle", "sight"),
)


def play(chain: Chain, tag: str, hit: Hit | None) -> None:
    """Play one round with one hit in it, and compare the books.

    Raises:
        AssertionError: something was lost, done twice, or done without a build.
    """
    steps = _steps(chain, tag, blind=hit is not None and hit.victim == "sight")
    for stage in steps:
        if hit is None or stage != hit.stage:
            continue
        if hit.victim in ("answer", "sight"):
            chain.jenkins.fault("close", method="POST")
            if hit.victim == "sight":
                chain.jenkins.queue.release()  # what waits there would be joined by what is asked for once more
                chain.jenkins.fault("status", status=403, method="GET", times=20)
            continue
        victim = chain.nodes[0] if hit.victim == "agent" else hit.victim
        chain.kill(victim)
        next(steps)  # what this stage does goes on without it
        chain.revive(victim)


def _steps(chain: Chain, tag: str, *, blind: bool) -> Iterator[Stage | None]:
    """Yield each stage when it is reached, then None when what it does was begun."""
    queue = chain.jenkins.queue
    queue.hold()
    chain.hold("build")
    yield "idle"
    commit = chain.push(tag)
    yield None
    yield "pushed"
    yield None
    wait_until(lambda: chain.queued(commit) or chain.builds_of(commit), "a request for a build")
    yield "asked"
    queue.release()
    yield None
    wait_until(lambda: chain.builds_of(commit), "a build")
    yield "builds"
    chain.let_go()
    yield None
    chain.built(commit)
    yield "built"
    yield None
    chain.fetched(tag)
    yield "fetched"
    chain.hold("deploy")
    request = chain.ask(tag, commit)
    yield None
    wait_until(Path(chain.root / f"script-runs-{commit}").exists, "a script of a node")
    yield "deploys"
    chain.let_go()
    yield None
    chain.books.wait(DeployReported, lambda one: one.request == request.id)
    yield "reported"
    yield None
    reports = chain.books.of_deploy(request)
    assert {one.outcome for one in reports.values()} == {"success"}, [one.summary for one in reports.values()]
    assert list(chain.live()) == [tag] * 3
    chain.books.wait(BuildRequested, lambda one: one.commit == commit)  # now nothing asks for it any more
    chain.jenkins.faults.clear()
    builds = chain.built(commit)
    assert {build.result for build in builds} == {"SUCCESS"}
    assert len(builds) == 2 or not blind, "this was to be built twice"
    chain.books.of_push(commit, builds)
    chain.books.nothing_live_unbuilt()
    assert chain.books.dead_letters == []
