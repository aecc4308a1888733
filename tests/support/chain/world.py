"""An origin, a relay, a build daemon, a Jenkins and three nodes, around one broker.

    with Chain(tmp_path, broker) as chain:
        commit = chain.push("v1")
        chain.built(commit)
        chain.fetched("v1")
        request = chain.ask("v1", commit)
        chain.books.of_deploy(request)

Everything but Jenkins is a process of its own, and Jenkins' builds run the real `jenkins-notify` with a signing key.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from deploykit.bus import Bus
from deploykit.messages import DeployRequested, MirrorUpdated
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.outbox import Outbox
from deploykit.settings import BusSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.brokers.process import PortLease
from tests.support.chain.books import CI, ChainBooks
from tests.support.chain.brokers import ChainBroker
from tests.support.chain.member import Member
from tests.support.chain.names import own_topics, topics_table
from tests.support.cli import command
from tests.support.node import GIT_ENV, git
from tests.support.stubjenkins import FOUR, StubJenkins, StubJob
from tests.support.stubjobs import StubBuild
from tests.support.wait import wait_until

JOB = "shop-tests"
SHOP = RepoName("shop")
OPERATOR = "operator@chain"
_SCRIPT = """#!/bin/sh
touch {root}/script-runs-$DEPLOYKIT_COMMIT
while [ -e {root}/hold-deploy ]; do sleep 0.02; done
"""
_BUILD = """test ! -e {root}/broken-$DEPLOYKIT_COMMIT || exit 1
while [ -e {root}/hold-build ]; do sleep 0.02; done"""


class Chain:
    """See above.

    Args:
        root: an empty directory.
        broker: runs already.
    """

    def __init__(self, root: Path, broker: ChainBroker) -> None:
        self.root = root
        self.broker = broker
        self.name = f"c{secrets.token_hex(3)}"
        #: Names of their own: on a shared broker the durable subscriptions of agents go by them.
        self.nodes = tuple(NodeName(f"{self.name}-web{number}") for number in (1, 2, 3))
        self.topics = own_topics(self.name)
        self.dead_letter = f"/queue/{self.name}.dead-letter"
        self._signers = root / "allowed_signers"
        self.keys = {}
        for principal in (OPERATOR, CI, *self.nodes):
            self.keys[principal] = generate_key(root / f"{principal}.key")
            trust(self._signers, principal, self.keys[principal].public_blob)
        self._make_origin()
        self._lease = PortLease()  # else another process may have its port while it is dead
        self.jenkins = StubJenkins([self._job()], workspace=root)
        self.jenkins.port = self._lease.port
        settings = BusSettings(address=broker.address, backoff_max=0.3, dead_letter=self.dead_letter)
        bus = Bus(settings, client_id=f"{self.name}-books")
        self.books = ChainBooks(bus, self.topics, self._signers, self.name)
        self.relay = self._member("relay", self._settings("hub"), "relay")
        self.members: dict[str, Member] = {"relay": self.relay}
        self._stack = ExitStack()

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._lease.release)
            stack.enter_context(self.jenkins)
            stack.callback(self.let_go)
            stack.callback(self.jenkins.queue.abort_builds)
            self.books.start()
            stack.callback(self.books.stop)
            self.members["trigger"] = self._member("jenkins", self._settings("ci", self._servers()), "trigger")
            for node in self.nodes:
                self.members[node] = self._member("agent", self._settings(node, self._site(node)), node)
            for member in self.members.values():
                stack.callback(member.kill)
                member.spawn()
            for member in self.members.values():
                member.wait_ready()
            self._stack = stack.pop_all()
        self.broker.settle()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def end(self) -> None:
        """See that nothing is left on the way, and end all daemons in good order."""
        spools = [Outbox(spool, create=False) for spool in self.root.glob("spool-*")]
        wait_until(lambda: not any([*spool.pending(everyone=True)] for spool in spools), "nothing is left in a spool")
        for member in self.members.values():
            assert member.stop() == 0, member.output[-2000:]
        for spool in spools:
            assert [record.destination for record in spool.pending(everyone=True)] == []
            assert list(spool.dead()) == []

    def kill(self, victim: str) -> None:
        """Kill the `broker`, `jenkins`, or one of the members."""
        if victim == "broker":
            self.broker.kill()
        elif victim == "jenkins":
            self.jenkins.stop()
        else:
            self.members[victim].kill()

    def revive(self, victim: str) -> None:
        """Start again what was killed."""
        if victim == "broker":
            self.broker.start()
        elif victim == "jenkins":
            self.jenkins.start()
        else:
            self.members[victim].start()

    def hold(self, what: str) -> None:
        """Let each `build` or `deploy` wait until `let_go`."""
        (self.root / f"hold-{what}").touch()

    def let_go(self) -> None:
        """Let builds and deploys go on."""
        for what in ("build", "deploy"):
            (self.root / f"hold-{what}").unlink(missing_ok=True)

    # -- what people do ------------------------------------------------------------------------------------------------

    def push(self, tag: str, *, broken: bool = False) -> ObjectId:
        """Commit, tag and push the tag; return the commit, whose build fails if it is `broken`."""
        (self.work / "index.html").write_text(f"{tag}\n")
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--message", f"work for {tag}", cwd=self.work)
        git("tag", tag, cwd=self.work)
        commit = ObjectId(git("rev-parse", "HEAD", cwd=self.work))
        if broken:
            (self.root / f"broken-{commit}").touch()
        done = subprocess.run(
            ["git", "push", "--quiet", "origin", tag], cwd=self.work, env=GIT_ENV, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert "1 event queued" in done.stderr, done.stderr
        return commit

    def ask(self, tag: str, commit: ObjectId) -> DeployRequested:
        """Ask all nodes for a deploy, with one signed command."""
        now = datetime.now(UTC)
        request = DeployRequested(
            source="operator/chain",
            time=now,
            site=SiteName("shop"),
            ref=RefName(f"refs/tags/{tag}"),
            commit=commit,
            audience=self.nodes,
            expires=now + timedelta(minutes=10),
        )
        frame = sign(encode(request), self.keys[OPERATOR])
        self.books.bus.publish_nowait(self.topics.deploy, frame, timeout=300)
        return request

    def deploy(self, tag: str, *nodes: str) -> dict[str, subprocess.CompletedProcess[str]]:
        """Run `deploykit deploy` for some nodes, one after the other; return how each ended."""
        argv = command("deploy", "shop", "--ref", tag, "--timeout", "60", "--config", str(self._settings("hub")))
        return {
            node: subprocess.run(
                [*argv, "--node", node], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
            )
            for node in nodes or self.nodes
        }

    # -- what becomes of it --------------------------------------------------------------------------------------------

    def builds_of(self, commit: ObjectId) -> list[StubBuild]:
        """Return the builds of a commit so far."""
        found = list(self.jenkins.queue.jobs[JOB].builds)
        return [build for build in found if build.parameters["DEPLOYKIT_COMMIT"] == commit]

    def queued(self, commit: ObjectId) -> bool:
        """Whether a build of a commit waits in the queue."""
        return any(item.parameters["DEPLOYKIT_COMMIT"] == commit for item in self.jenkins.queue.waiting())

    def built(self, commit: ObjectId) -> list[StubBuild]:
        """Wait until a commit was built, and nothing more of it waits; return its builds."""
        wait_until(lambda: self.builds_of(commit) and not self.queued(commit), f"a build of {commit}", 120)
        wait_until(lambda: all(build.ended.is_set() for build in self.builds_of(commit)), f"{commit} is built", 120)
        return self.builds_of(commit)

    def fetched(self, tag: str) -> None:
        """Wait until every node has fetched a tag."""

        def all_have() -> bool:
            fetched = self.books.of(MirrorUpdated, lambda one: one.ref == f"refs/tags/{tag}")
            return {one.node for one in fetched} == set(self.nodes)

        wait_until(all_have, f"every node fetches {tag}", 120)

    def live(self) -> Sequence[str]:
        """Return what is live on each node; empty where nothing is."""
        pages = [self.root / f"site-{node}" / "current" / "index.html" for node in self.nodes]
        return [page.read_text().strip() if page.exists() else "" for page in pages]

    # -- how it is set up ----------------------------------------------------------------------------------------------

    def _make_origin(self) -> None:
        self.origin, self.work = self.root / "shop.git", self.root / "work"
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin), cwd=self.root)
        git("clone", "--quiet", str(self.origin), str(self.work), cwd=self.root)
        git("checkout", "--quiet", "-B", "main", cwd=self.work)
        (self.work / "deploy").mkdir()
        script = self.work / "deploy" / "pre-deploy"
        script.write_text(_SCRIPT.format(root=self.root))
        script.chmod(0o755)
        topics = self._topics()
        (self.origin / "deploykit.toml").write_text(
            f'repo = "shop"\nspool = "{self.root}/spool-hub"\nrelay = ""\n{topics}'
        )
        (self.root / "hooks.toml").write_text(
            f'spool = "{self.root}/spool-ci"\nrelay = ""\nsigning_key = "{self.root}/{CI}.key"\n{topics}'
        )
        for kind, where in (("git", self.origin), ("jenkins", self.root)):
            subprocess.run(command("hooks", "install", "--kind", kind, str(where)), capture_output=True, check=True)

    def _job(self) -> StubJob:
        notify = [str(self.root / "jenkins-notify"), "--config", str(self.root / "hooks.toml")]
        return StubJob(
            name=JOB,
            parameters=FOUR,
            steps=[[*notify, "begin"], ["/bin/sh", "-c", _BUILD.format(root=self.root)]],
            always=[*notify, "RESULT"],
            checkout=lambda parameters: {"GIT_COMMIT": parameters["DEPLOYKIT_COMMIT"], "GIT_URL": str(self.origin)},
        )

    def _member(self, daemon: str, config: Path, name: str) -> Member:
        return Member(name, command(daemon, "--config", str(config)), self.root, ready="ready: ")

    def _topics(self) -> str:
        return topics_table(self.topics)

    def _settings(self, node: str, more: str = "") -> Path:
        """Write the settings of a node, and return their file; the hub is where the origin and the operator are."""
        file = self.root / f"{node}.toml"
        if file.exists():
            return file
        key = {"hub": OPERATOR, "ci": CI}.get(node, node)
        grants = (
            f'{{ principal = "{OPERATOR}", types = ["deploy.requested"], sites = ["shop"] }}',
            f'{{ principal = "{CI}", types = ["build.finished"], repos = ["shop"], jobs = ["{JOB}"] }}',
        )
        file.touch(0o600)
        file.write_text(
            f'node = "{node}"\nstate = "{self.root}/state-{node}"\nsigning_key = "{self.root}/{key}.key"\n'
            f"fetch_spread = 0\n"
            f'[broker]\naddress = "{self.broker.address}"\nbackoff_max = 0.3\ndead_letter = "{self.dead_letter}"\n'
            f'[outbox]\npath = "{self.root}/spool-{node}"\n'
            f'[trust]\nallowed_signers = "{self._signers}"\ngrants = [{", ".join(grants)}]\n'
            f'[repositories.shop]\nurl = "{self.origin}"\nfetch_on = "build"\n{more}{self._topics()}'
        )
        return file

    def _site(self, node: str) -> str:
        return f'[sites.shop]\npath = "{self.root}/site-{node}"\nrepo = "shop"\nrequire_build = ["{JOB}"]\n'

    def _servers(self) -> str:
        server = self.jenkins.settings(self.root)
        return (
            f'[jenkins]\nask_again_after = 1\npause_max = 1\n[jenkins.servers.ci]\nurl = "{server.url}"\n'
            f'user = "{server.user}"\ntoken_file = "{server.token_file}"\ntimeout = 5\n'
            f'[[jenkins.jobs]]\nrepo = "shop"\njob = "{JOB}"\nrefs = ["refs/tags/*"]\n'
        )
