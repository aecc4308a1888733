"""The demo's steps: broker, origin, node, push, deploy, and a broker that is killed in the middle."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

from deploykit.bus import Bus
from deploykit.demo.checks import holds, refs_of, refs_or_none, tree_differences
from deploykit.demo.stage import Finished, Stage, answers, free_port
from deploykit.demo.timeline import CheckedClaim, Timeline
from deploykit.errors import DemoFailed
from deploykit.settings.address import Broker
from deploykit.settings.bus import BusSettings
from deploykit.testing.proxy import FaultProxy

_TAG = "deploykit-demo-1"
_BROKER_SECONDS = 10.0
#: Seconds that one of two pushes may take longer because this machine is busy. A hook that waited for a broker would
#: take the 10 s in which a message must be confirmed.
_NOISE = 5.0
_SCRIPT = """#!/bin/sh
# Runs for {name}: gets "-t TAG" and DEPLOYKIT_* variables.
echo "{name} $* site=$DEPLOYKIT_SITE commit=$DEPLOYKIT_COMMIT" >> "{trace}"
echo "hello from {name}"
"""


#: Release settings for a repository of the user: it may hold entries that a site refuses by default.
_LENIENT = (
    ', submodules = "skip", symlinks = "any", raw_attributes = ["filter", "eol", "ident", "working-tree-encoding"]'
)


class Story:
    """One run of the demo.

    Args:
        stage: the directory and processes it uses.
        timeline: where it prints.
        broker: a real broker to use; None starts the embedded one.
        repo: a real repository to start from; None makes a small one. It is cloned, never written to.
    """

    def __init__(self, stage: Stage, timeline: Timeline, *, broker: Broker | None, repo: Path | None) -> None:
        self._stage = stage
        self._timeline = timeline
        self._broker = broker
        self._repo = repo
        self._line: FaultProxy | None = None
        self._port = 0
        self._claims: list[CheckedClaim] = []
        self._figures: dict[str, float] = {}
        root = stage.root
        self._origin, self._work = root / "git" / "shop.git", root / "work"
        self._mirror, self._site = root / "state" / "mirrors" / "shop.git", root / "site"
        self._node_config, self._hub_config = root / "node.toml", root / "hub.toml"
        self._trace = root / "scripts.trace"

    def play(self) -> bool:
        """Run all steps in order and return whether every claim held."""
        steps: tuple[Callable[[], None], ...] = (
            self._set_up_broker,
            self._set_up_origin,
            self._set_up_node,
            self._push,
            self._refuse_a_stranger,
            self._deploy,
            self._stop_broker,
            self._restart_broker,
            self._end,
        )
        try:
            for step in steps:
                step()
        finally:
            if self._line is not None:
                self._line.stop()
        self._timeline.end(self._claims, self._figures)
        return all(claim.held for claim in self._claims)

    def _claim(self, name: str, held: bool, shown: str, seconds: float | None = None) -> None:
        claim = CheckedClaim(name=name, held=held, shown=shown, seconds=seconds)
        self._claims.append(claim)
        self._timeline.claim(claim)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _set_up_broker(self) -> None:
        if self._broker is None:
            self._write_private("passcode", "demo-passcode\n")
            self._port = free_port()
            took = self._start_broker()
            self._timeline.event("broker", f"the embedded broker answers on 127.0.0.1:{self._port} after {took:.2f} s")
            return
        self._check_login(self._broker)
        self._write_private("passcode", self._broker.passcode + "\n")
        self._line = FaultProxy(self._broker.port, self._broker.host)
        self._line.start()
        self._port = self._line.port
        self._timeline.event("broker", f"{self._broker.host}:{self._broker.port}, through a proxy that can be cut")

    @staticmethod
    def _check_login(broker: Broker) -> None:
        """Log in once, so that a wrong address or passcode ends the demo before its first step."""
        settings = BusSettings(address=str(broker), login=broker.login, passcode=broker.passcode, backoff_max=0.5)
        with Bus(settings) as bus:
            if not bus.wait_connected(_BROKER_SECONDS):
                raise DemoFailed(f"no broker answers at {broker}", "start it, correct --broker, or leave --broker out")

    def _start_broker(self) -> float:
        stage = self._stage
        stage.start(
            "broker",
            *stage.command("broker", "--port", str(self._port), "--data", str(stage.root / "broker")),
            *("--user", "demo", "--passcode-file", str(stage.root / "passcode")),
        )
        return stage.wait(lambda: answers(self._port), "the embedded broker to listen")

    def _set_up_origin(self) -> None:
        git = self._stage.git
        self._origin.parent.mkdir()
        if self._repo is None:
            git("init", "--quiet", "--bare", "--initial-branch=main", str(self._origin))
            git("clone", "--quiet", str(self._origin), str(self._work))
            (self._work / "index.html").write_text("<h1>Shop, first version</h1>\n")
            git("checkout", "--quiet", "-B", "main", cwd=self._work)
        else:
            git("clone", "--quiet", "--mirror", str(self._repo), str(self._origin))
            git("clone", "--quiet", str(self._origin), str(self._work))
            git("checkout", "--quiet", "-B", "deploykit-demo", cwd=self._work)
        self._write_scripts()
        spool = self._stage.root / "spool-hub"
        self._write_config(self._hub_config, spool)
        (self._origin / "deploykit.toml").write_text(f'repo = "shop"\nspool = "{spool}"\n{self._topics()}')
        self._stage.must(*self._stage.command("hooks", "install", str(self._origin)))
        self._stage.start("relay", *self._stage.command("relay", "--config", str(self._hub_config)))
        self._timeline.event("hook", f"installed in {self._origin}; a relay sends what it queues")

    def _set_up_node(self) -> None:
        stage = self._stage
        command = stage.command
        for who in ("operator", "node", "stranger"):
            stage.must(*command("keys", "generate", str(stage.root / f"{who}.key")))
        signers = stage.root / "allowed_signers"
        # A node reports under its own name; the node's settings grant what an operator may ask for.
        for principal, who in (("operator@demo", "operator"), ("node", "node")):
            public = str(stage.root / f"{who}.key.pub")
            stage.must(*command("keys", "trust", principal, public, "--file", str(signers)))
        self._write_config(self._node_config, stage.root / "spool-node", node=True)
        self._timeline.text(f"the node's settings, {self._node_config}:", self._node_config.read_text())
        stage.start("watch", *command("watch", "--json", *self._watch_options()))
        stage.start("agent", *command("agent", "--config", str(self._node_config)))
        took = stage.wait(
            lambda: bool(self._repo is None or refs_or_none(stage, self._mirror) == refs_of(stage, self._origin)),
            "the node's first mirror",
            timeout=600,
        )
        stage.wait(
            lambda: "ready" in stage.output_of("agent") and "ready" in stage.output_of("watch"),
            "agent and watch to start",
        )
        count = len(refs_of(stage, self._origin))
        if self._repo is not None:
            commits = int(stage.git(f"--git-dir={self._mirror}", "rev-list", "--count", "--all"))
            self._figures[f"first mirror ({commits:,} commits)"] = took
            self._claim("the node mirrors the whole repository", True, f"{count} refs, {commits:,} commits", took)

    def _push(self) -> None:
        commit = self._commit("A second version", tag=_TAG)
        done, branch = self._git_push("--tags")
        self._figures["git push, broker up"] = done.seconds
        self._timeline.event("developer", f"git push {branch} {_TAG}: {self._hook_line(done)}")
        self._claim("a push with the hook succeeds", done.code == 0, f"exit code {done.code}", done.seconds)
        took = self._stage.wait(
            lambda: refs_or_none(self._stage, self._mirror) == refs_of(self._stage, self._origin),
            "the same refs in the node's mirror",
        )
        self._figures["push returned -> mirror holds it"] = took
        whole = holds(self._stage, self._mirror, f"refs/tags/{_TAG}", commit)
        self._claim("the message became a mirror", whole, "git lists the same refs in both", took)

    def _refuse_a_stranger(self) -> None:
        done = self._ask_deploy("--key", str(self._stage.root / "stranger.key"))
        self._timeline.event("operator", f"a stranger's deploy: {_last(done.errors)}")
        held = done.code == 3 and not (self._site / "current").exists()
        self._claim("a command with a strange key is refused", held, f"exit code {done.code}, the site untouched")

    def _deploy(self) -> None:
        commit = self._commit_of(_TAG)
        done = self._ask_deploy()
        self._figures["deploy: asked -> reported"] = done.seconds
        self._timeline.event("operator", f"deploykit deploy shop --ref {_TAG}: {_last(done.output or done.errors)}")
        self._claim("the node reports success", done.code == 0, f"exit code {done.code}", done.seconds)
        current = self._site / "current"
        if current.exists():
            wrong = tree_differences(self._stage, self._origin, commit, current.resolve())
        else:
            wrong = ["there is no release"]
        self._claim("the release is the tag's tree", not wrong, "; ".join(wrong[:3]) or "git finds no difference")
        lines = self._trace.read_text().splitlines() if self._trace.exists() else []
        ran = [line.split(" ")[0] for line in lines if f"-t {_TAG} " in line and f"commit={commit}" in line]
        self._claim("scripts ran before and after", ran == ["pre-deploy", "post-deploy"], ", ".join(ran) or "none ran")

    def _stop_broker(self) -> None:
        if self._line is None:
            self._stage.kill("broker")
        else:
            self._line.stop()
        self._timeline.event("broker", "killed" if self._line is None else "the connection to it is cut")
        self._down_commit = self._commit("Pushed while the broker is dead")
        done, branch = self._git_push()
        self._figures["git push, broker dead"] = done.seconds
        self._timeline.event("developer", f"git push {branch}: {self._hook_line(done)}")
        # Both pushes do the same git work.
        quick = done.code == 0 and done.seconds < self._figures["git push, broker up"] + _NOISE
        self._claim("a push without a broker returns at once", quick, f"exit code {done.code}", done.seconds)
        kept = sum(1 for p in (self._stage.root / "spool-hub").rglob("*") if p.is_file() and self._holds_event(p))
        self._claim("its event waits on disk", kept > 0, f"{kept} record in the spool names it")
        heard = self._down_commit in self._stage.output_of("watch")
        self._claim("no subscriber has it yet", not heard, "watch printed nothing")

    def _restart_broker(self) -> None:
        if self._line is None:
            self._start_broker()
        else:
            self._line.start()
        self._timeline.event("broker", "back")
        took = self._stage.wait(lambda: self._down_commit in self._stage.output_of("watch"), "the kept event to arrive")
        self._figures["broker back -> event arrives"] = took
        self._claim("the event arrives by itself", True, "watch printed it", took)
        took = self._stage.wait(
            lambda: holds(self._stage, self._mirror, self._branch_ref(), self._down_commit), "the mirror to follow"
        )
        self._claim("and the mirror follows", True, f"git finds {self._down_commit[:12]} in it", took)

    def _end(self) -> None:
        codes = {name: self._stage.stop(name) for name in ("agent", "watch", "relay")}
        self._claim("every daemon ends with 0 on TERM", not any(codes.values()), f"exit codes {codes}")
        if self._broker is not None:  # a real broker belongs to somebody: leave nothing behind
            command = self._stage.command
            self._stage.must(*command("agent", "--config", str(self._node_config), "--forget"))
            self._stage.must(*command("watch", "--forget", *self._watch_options()))

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _branch_ref(self) -> str:
        return self._stage.git("symbolic-ref", "HEAD", cwd=self._work)

    def _commit_of(self, name: str) -> str:
        return self._stage.git("rev-parse", f"{name}^{{commit}}", cwd=self._work)

    def _commit(self, message: str, *, tag: str = "") -> str:
        (self._work / "DEMO.txt").write_text(f"{message}\n")
        self._stage.git("add", "--all", cwd=self._work)
        self._stage.git("commit", "--quiet", "--message", message, cwd=self._work)
        if tag:
            self._stage.git("tag", "--annotate", "--message", f"Release {tag}", tag, cwd=self._work)
        return self._commit_of("HEAD")

    def _git_push(self, *options: str) -> tuple[Finished, str]:
        branch = self._branch_ref().removeprefix("refs/heads/")
        return self._stage.run("git", "push", *options, "origin", branch, cwd=self._work), branch

    @staticmethod
    def _hook_line(done: Finished) -> str:
        lines = [line for line in done.errors.splitlines() if "deploykit:" in line]
        return lines[-1].removeprefix("remote:").strip() if lines else "the hook printed nothing"

    def _ask_deploy(self, *options: str) -> Finished:
        return self._stage.run(
            *self._stage.command("deploy", "shop", "--ref", _TAG, "--node", "node", "--timeout", "30"),
            *("--config", str(self._hub_config), *options),
        )

    def _holds_event(self, record: Path) -> bool:
        return self._down_commit.encode() in record.read_bytes()

    def _write_private(self, name: str, text: str) -> None:
        path = self._stage.root / name
        path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        path.write_text(text)

    def _write_scripts(self) -> None:
        directory = self._work / "deploy"
        directory.mkdir(exist_ok=True)
        for name in ("pre-deploy", "post-deploy"):
            (directory / name).write_text(_SCRIPT.format(name=name, trace=self._trace))
            (directory / name).chmod(0o755)

    def _watch_options(self) -> list[str]:
        # Durable, so that it does not matter which is back first when the broker returns: watch or relay.
        return ["--durable", self._stage.root.name, "--config", str(self._hub_config)]

    def _topics(self) -> str:
        if self._broker is None:
            return ""
        # Topics of its own on a real broker: the demo disturbs no other user.
        unique = self._stage.root.name
        names = ("source", "mirror", "deploy", "report", "notice")
        return "[topics]\n" + "".join(f'{name} = "/topic/{unique}.{name}"\n' for name in names)

    def _write_config(self, path: Path, spool: Path, *, node: bool = False) -> None:
        root = self._stage.root
        login = self._broker.login if self._broker else "demo"
        key = "node" if node else "operator"
        text = f"""\
node = "{"node" if node else "hub"}"
fetch_spread = 0
state = "{root / ("state" if node else "state-hub")}"
signing_key = "{root / f"{key}.key"}"

[broker]
address = "stomp://127.0.0.1:{self._port}"
login = {json.dumps(login)}
passcode_file = "{root / "passcode"}"
backoff_max = 0.5

[outbox]
path = "{spool}"

[trust]
allowed_signers = "{root / "allowed_signers"}"

[repositories.shop]
url = "{self._origin}"
"""
        if node:
            text += '\n[[trust.grants]]\nprincipal = "operator@demo"\ntypes = ["deploy.requested"]\nsites = ["shop"]\n'
            text += f'\n[sites.shop]\npath = "{self._site}"\nrepo = "shop"\n'
            text += f'release = {{ required = ["pre-deploy", "post-deploy"]{_LENIENT if self._repo else ""} }}\n'
        path.write_text(f"{text}\n{self._topics()}".rstrip() + "\n")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


__all__ = ["DemoFailed", "Story"]
