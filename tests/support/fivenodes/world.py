"""Five real agents around one broker, each with its own directory, key, mirror and site, and a desk that rolls out.

    with FiveNodes(tmp_path, broker) as fleet:
        old = fleet.level()                   # every node has it
        new = fleet.push()
        fleet.order("fail", "web1", "post-deploy", new)
        done = fleet.desk.run(new, "--max-failures", "0")

Agents are threads of the test, but for those named in `killable`: processes of their own. Scripts of the site fail, or
wait, where a file says so.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from deploykit.bus import Bus
from deploykit.config import load_settings
from deploykit.fleet.plan import Target
from deploykit.messages import DeployReported, DeployRequested
from deploykit.names import NodeName, ObjectId, RefName
from deploykit.release import Site
from deploykit.settings import BusSettings, Settings
from deploykit.trust.keyfiles import generate_key, trust
from tests.support.chain.books import ChainBooks
from tests.support.chain.brokers import ChainBroker
from tests.support.chain.member import Member
from tests.support.chain.names import own_topics, topics_table
from tests.support.cli import command
from tests.support.fivenodes.desk import Desk
from tests.support.node import NodeAgent, Origin
from tests.support.wait import wait_until

OPERATOR: Final = "ops@fleet"
#: Who signs build results, where there is a console.
CI: Final = "ci@fleet"
COUNT: Final = 5
_SCRIPT: Final = """#!/bin/sh
order={root}/$DEPLOYKIT_NODE.$DEPLOYKIT_STEP.$DEPLOYKIT_TAG
echo "$DEPLOYKIT_STEP runs on $DEPLOYKIT_NODE"
echo "$DEPLOYKIT_STEP $DEPLOYKIT_TAG" >> {root}/$DEPLOYKIT_NODE.ran
while [ -e $order.hold ]; do : > $order.held; sleep 0.02; done
test ! -e $order.fail
"""
#: A release is more than one file, so that half of one is seen.
_PAGES: Final = 12


class Place:
    """One node: its directories and its agent.

    Args:
        root: of the fleet.
        short: `web1` …; the name on the bus has a mark before it.
        config: its settings file.
        process: its agent is a process, else threads of the test.
    """

    def __init__(self, root: Path, short: str, config: Path, *, process: bool) -> None:
        self.short = short
        self._root, self._config = root, config
        self.settings = load_settings(config)
        self.name = self.settings.node
        (self.site,) = (site.path for site in self.settings.sites.values())
        self.member = self._member({}) if process else None
        self._agent: NodeAgent | None = None

    def _member(self, variables: Mapping[str, str]) -> Member:
        words = command("agent", "--config", str(self._config))
        return Member(self.short, words, self._root, ready="ready: ", env=variables)

    def spawn(self) -> None:
        """Start the agent."""
        if self.member is not None:
            self.member.spawn()
        else:
            self._agent = NodeAgent(self.settings)
            self._agent.__enter__()

    def wait_ready(self) -> None:
        """Wait until the agent hears its topics."""
        if self.member is not None:
            self.member.wait_ready()
        elif self._agent is not None:
            self._agent.ready()

    def start(self) -> None:
        """Start the agent, and wait until it hears its topics."""
        self.spawn()
        self.wait_ready()

    def kill(self) -> None:
        """Kill the agent, which has to be a process."""
        assert self.member is not None, f"{self.short} is not killable"
        self.member.kill()

    def restart(self, **variables: str) -> None:
        """Kill the agent, and start it again with more variables in its environment."""
        self.kill()
        self.member = self._member(variables)
        self.start()

    def end(self) -> None:
        """End the agent, whatever it is."""
        if self.member is not None:
            self.member.kill()
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.__exit__(None, None, None)


class FiveNodes:
    """See above.

    Args:
        root: an empty directory.
        broker: runs already.
        killable: the nodes whose agents are processes.
        approvers: principals of whom each must sign a rollout; the key of the desk may then run those alone.
        console: there is a machine more, for the web console: nodes answer its questions. It has no site.
    """

    def __init__(
        self,
        root: Path,
        broker: ChainBroker,
        *,
        killable: Collection[str] = (),
        approvers: Sequence[str] = (),
        console: bool = False,
    ) -> None:
        self.root, self.broker = root, broker
        self.mark = f"f{secrets.token_hex(3)}"
        self.topics = own_topics(self.mark)
        self.dead_letter = f"/queue/{self.mark}.dead-letter"
        self.origin = Origin(root / "git")
        self._tags = 0
        self._orders = root / "orders"
        self._orders.mkdir()
        self._signers = root / "allowed_signers"
        shorts = [f"web{number}" for number in range(1, COUNT + 1)]
        self._approvers = tuple(approvers)
        self._console = console
        self.people = tuple(root / f"{name}.key" for name in approvers)
        machines = [*shorts, "console"] if console else shorts
        for principal in (OPERATOR, *([CI] if console else ()), *approvers, *(self.named(one) for one in machines)):
            key = generate_key(root / f"{principal}.key")
            trust(self._signers, principal, key.public_blob)
        self.desk_file = self._settings("desk", OPERATOR)
        if console:
            self.console_file = self._settings("console", self.named("console"))
        self.places = {}
        for short in shorts:
            config = self._settings(short, self.named(short))
            self.places[short] = Place(root, short, config, process=short in killable)
        self.settings: Settings = load_settings(self.desk_file)
        self.desk = Desk(root, self.desk_file, self.nodes, self.people)
        settings = BusSettings(address=broker.address, backoff_max=0.3, dead_letter=self.dead_letter)
        bus = Bus(settings, client_id=f"{self.mark}-books")
        more = [self.topics.deploy_to(node) for node in self.nodes]
        self.books = ChainBooks(bus, self.topics, self._signers, self.mark, more=more)
        self._stack = ExitStack()

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.books.start()
            stack.callback(self.books.stop)
            for place in self.places.values():
                stack.callback(place.end)
                place.spawn()
            for place in self.places.values():
                place.wait_ready()
            stack.callback(self.let_go)
            stack.callback(self.desk.kill)
            self._stack = stack.pop_all()
        self.broker.settle()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def named(self, short: str) -> NodeName:
        """Return the name that a node has on the bus: no other fleet's, brokers are shared."""
        return NodeName(f"{self.mark}-{short}")

    @property
    def nodes(self) -> tuple[NodeName, ...]:
        """All nodes, in their order."""
        return tuple(place.name for place in self.places.values())

    @contextmanager
    def people_away(self) -> Iterator[None]:
        """Take the keys of those who approve away for the time of a `with` block: nobody can sign."""
        there = [key for key in self.people if key.exists()]
        for key in there:
            key.rename(key.with_suffix(".away"))
        try:
            yield
        finally:
            for key in there:
                key.with_suffix(".away").rename(key)

    # -- what people do ------------------------------------------------------------------------------------------------

    def push(self, tag: str = "") -> Target:
        """Commit a release, tag it and push the tag: a new one, or one that moves."""
        if not tag:
            self._tags += 1
            tag = f"v{self._tags}"
        script = _SCRIPT.format(root=self._orders)
        files = {f"pages/{number}.html": f"{tag} {secrets.token_hex(8)}\n" for number in range(_PAGES)}
        files |= {"index.html": f"{tag}\n", "deploy/pre-deploy": script, "deploy/post-deploy": script}
        return Target(ref=RefName(f"refs/tags/{tag}"), commit=self.origin.push(tag=tag, files=files))

    def level(self) -> Target:
        """Return what is live on all nodes; a new release where they have several, or none."""
        live = {self.live(short) for short in self.places}
        target = live.pop()
        if target is not None and not live:
            return target
        return self.fresh()

    def fresh(self) -> Target:
        """Put a new release live on all nodes, which none of them was ever told to go back to; return it."""
        new = self.push()
        done = self.desk.run(new, "--first", "0", "--batch", "5")
        assert done.code == 0, done.output
        return new

    def live(self, short: str) -> Target | None:
        """Return what a node's own records say is live."""
        current = Site(self.places[short].site).current()
        return None if current is None else Target(ref=RefName(current.ref), commit=ObjectId(current.commit))

    # -- what nodes are told to do -------------------------------------------------------------------------------------

    def order(self, what: str, short: str, step: str, target: Target) -> None:
        """Let a script of a node `fail`, or `hold` it until it is let go."""
        self._order("held", short, step, target).unlink(missing_ok=True)  # of an earlier rollout
        self._order(what, short, step, target).touch()

    def wait_held(self, short: str, step: str, target: Target) -> None:
        """Wait until a script waits."""
        wait_until(self._order("held", short, step, target).exists, f"{step} of {target.ref} on {short}", 120)

    def let_go_of(self, short: str, step: str, target: Target) -> None:
        """Let one script go on."""
        self._order("hold", short, step, target).unlink()

    def let_fail(self, short: str, step: str, target: Target) -> None:
        """Let a script that failed fail no more."""
        self._order("fail", short, step, target).unlink()

    def let_go(self) -> None:
        """Let all scripts go on that wait, and those that would."""
        for file in self._orders.glob("*.h*ld"):
            file.unlink()

    def asked(self, phase: str, target: Target) -> set[str]:
        """Return the nodes that were asked for a phase of a target, by their short names.

        What was reported on was asked for, but the books may hear of it later than of the report.
        """

        def reported() -> set[str]:
            reports = self.books.of(DeployReported, lambda one: one.phase == phase and one.target is not None)
            return {one.request for one in reports if one.target is not None and one.target.commit == target.commit}

        wait_until(lambda: reported() <= {one.id for one in self.books.of(DeployRequested)}, f"each {phase}")
        requests = self.books.of(DeployRequested, lambda one: one.phase == phase and one.commit == target.commit)
        return {node.partition("-")[2] for request in requests for node in request.audience}

    # -- how it is set up ----------------------------------------------------------------------------------------------

    def _order(self, what: str, short: str, step: str, target: Target) -> Path:
        return self._orders / f"{self.named(short)}.{step}.{target.name}.{what}"

    def _settings(self, short: str, principal: str) -> Path:
        directory = self.root / short
        directory.mkdir()
        file = directory / "deploykit.toml"
        node = "desk" if short == "desk" else principal
        bare = short in ("desk", "console")
        site = "" if bare else f'[sites.shop]\npath = "{directory}/site"\nrepo = "shop"\n'
        site += f"signatures = {len(self._approvers)}\n" if site and self._approvers else ""
        types = '"rollout.run", "node.queried"' if self._approvers else '"deploy.requested", "rollout.abort"'
        grants = [f'{{ principal = "{OPERATOR}", types = [{types}] }}']
        grants += [f'{{ principal = "{name}", types = ["rollout.approved"] }}' for name in self._approvers]
        if self._console:
            asking = [OPERATOR, self.named("console")]
            grants += [f'{{ principal = "{name}", types = ["node.queried"] }}' for name in asking]
            grants += [f'{{ principal = "{CI}", types = ["build.finished"], repos = ["shop"], jobs = ["*"] }}']
        file.touch(0o600)
        file.write_text(
            f'node = "{node}"\nstate = "{directory}/state"\nsigning_key = "{self.root}/{principal}.key"\n'
            "fetch_spread = 0\n"
            f'[broker]\naddress = "{self.broker.address}"\nbackoff_initial = 0.05\nbackoff_max = 0.3\n'
            f'dead_letter = "{self.dead_letter}"\n'
            f'[outbox]\npath = "{directory}/spool"\n'
            f'[trust]\nallowed_signers = "{self._signers}"\n'
            f"grants = [{', '.join(grants)}]\n"
            f'[repositories.shop]\nurl = "{self.origin.path}"\n{site}{topics_table(self.topics)}'
        )
        return file


__all__ = ["CI", "COUNT", "OPERATOR", "FiveNodes", "Place"]
