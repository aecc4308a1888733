"""The fleet demo's steps: three nodes, a canary that fails, a rollout that succeeds, and the way back.

Every rollout is the public command in a process of its own, and draws itself. What it claims is then looked up in the
nodes' directories.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploykit.demo.checks import tree_differences
from deploykit.demo.stage import Stage, answers, free_port
from deploykit.demo.timeline import CheckedClaim, Timeline

NODES: Final = ("web1", "web2", "web3")
_CANARY: Final = NODES[0]
#: Scripts of the demo's site. They take their time, so that there is something to see.
_PRE_DEPLOY: Final = """#!/bin/sh
for table in orders customers prices; do
    echo "migrating $table"
    sleep 0.2
done
"""
_POST_DEPLOY: Final = """#!/bin/sh
echo "asking the shop for its front page"
sleep 0.3
echo "200 OK"
"""
_BROKEN: Final = """#!/bin/sh
echo "asking the shop for its front page"
sleep 0.3
echo "500 Internal Server Error" >&2
exit 1
"""


class FleetStory:
    """One run of the fleet demo.

    Args:
        stage: the directory and processes it uses.
        timeline: where it prints.
        as_json: rollouts print JSON lines, too.
    """

    def __init__(self, stage: Stage, timeline: Timeline, *, as_json: bool) -> None:
        self._stage = stage
        self._timeline = timeline
        self._as_json = as_json
        self._claims: list[CheckedClaim] = []
        self._figures: dict[str, float] = {}
        self._port = 0
        root = stage.root
        self._origin, self._work = root / "git" / "shop.git", root / "work"
        self._operator = root / "operator.toml"

    def play(self) -> bool:
        """Run all steps in order and return whether every claim held."""
        steps: tuple[Callable[[], None], ...] = (
            self._set_up_broker,
            self._set_up_origin,
            self._set_up_nodes,
            self._first_release,
            self._canary_fails,
            self._rollout_succeeds,
            self._roll_back,
            self._end,
        )
        for step in steps:
            step()
        self._timeline.end(self._claims, self._figures)
        return all(claim.held for claim in self._claims)

    # -- the surroundings ----------------------------------------------------------------------------------------------

    def _set_up_broker(self) -> None:
        stage = self._stage
        (stage.root / "passcode").touch(mode=0o600)
        (stage.root / "passcode").write_text("demo-passcode\n")
        self._port = free_port()
        stage.start(
            "broker",
            *stage.command("broker", "--port", str(self._port), "--data", str(stage.root / "broker")),
            *("--user", "demo", "--passcode-file", str(stage.root / "passcode")),
        )
        stage.wait(lambda: answers(self._port), "the embedded broker to listen")
        self._timeline.event("broker", f"the embedded broker answers on 127.0.0.1:{self._port}")

    def _set_up_origin(self) -> None:
        git = self._stage.git
        self._origin.parent.mkdir()
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self._origin))
        git("clone", "--quiet", str(self._origin), str(self._work))
        git("checkout", "--quiet", "-B", "main", cwd=self._work)
        self._release("v1.0", "first release", _POST_DEPLOY)
        self._release("v1.1", "a release whose front page is broken", _BROKEN)
        self._release("v1.2", "the front page mended", _POST_DEPLOY)
        git("push", "--quiet", "--tags", "origin", "main", cwd=self._work)
        self._timeline.event("developer", "pushed v1.0, v1.1 (its front page is broken) and v1.2")

    def _release(self, tag: str, message: str, post_deploy: str) -> None:
        (self._work / "deploy").mkdir(exist_ok=True)
        (self._work / "index.html").write_text(f"<h1>Shop {tag}</h1>\n")
        for name, text in (("pre-deploy", _PRE_DEPLOY), ("post-deploy", post_deploy)):
            (self._work / "deploy" / name).write_text(text)
            (self._work / "deploy" / name).chmod(0o755)
        git = self._stage.git
        git("add", "--all", cwd=self._work)
        git("commit", "--quiet", "--message", message, cwd=self._work)
        git("tag", "--annotate", "--message", f"Release {tag}", tag, cwd=self._work)

    def _set_up_nodes(self) -> None:
        from deploykit.trust.keyfiles import generate_key, trust

        stage, root = self._stage, self._stage.root
        for who in ("operator", *NODES):
            made = generate_key(root / f"{who}.key")
            trust(root / "allowed_signers", "operator@demo" if who == "operator" else who, made.public_blob)
        self._write_settings("operator", self._operator)
        for node in NODES:
            (root / node).mkdir()
            self._write_settings(node, root / node / "deploykit.toml")
            stage.start(node, *stage.command("agent", "--config", str(root / node / "deploykit.toml")))
        took = stage.wait(lambda: all("ready" in stage.output_of(node) for node in NODES), "three agents to start")
        stage.wait(
            lambda: all((root / node / "state/mirrors/shop.git/packed-refs").exists() for node in NODES),
            "the nodes' first mirrors",
        )
        self._figures["three agents start"] = took
        self._timeline.event("node", f"{', '.join(NODES)}: three agents, each with a directory of its own")

    def _write_settings(self, name: str, path: Path) -> None:
        root = self._stage.root
        text = f"""\
node = "{name}"
fetch_spread = 0
state = "{root / name / "state"}"
signing_key = "{root / f"{name}.key"}"

[broker]
address = "stomp://127.0.0.1:{self._port}"
login = "demo"
passcode_file = "{root / "passcode"}"
backoff_max = 0.5

[outbox]
path = "{root / name / "spool"}"

[trust]
allowed_signers = "{root / "allowed_signers"}"

[repositories.shop]
url = "{self._origin}"
"""
        if name in NODES:
            text += f"""
[[trust.grants]]
principal = "operator@demo"
types = ["deploy.requested", "rollout.abort", "node.queried"]

[sites.shop]
path = "{root / name / "site"}"
repo = "shop"
release = {{ required = ["pre-deploy", "post-deploy"] }}
"""
        path.write_text(text)

    # -- the rollouts --------------------------------------------------------------------------------------------------

    def _first_release(self) -> None:
        self._heading("The first release, on all three")
        code = self._run("deploy", "shop", "--ref", "v1.0", *self._by_name(), "--first", "0", "--batch", "100%")
        live = self._live()
        self._claim("v1.0 is live on all three", code == 0 and self._all(live, "v1.0"), self._shown(live))

    def _canary_fails(self) -> None:
        self._heading("v1.1 is broken: the canary finds out, the others never see it")
        before = self._links()
        code = self._run("deploy", "shop", "--ref", "v1.1", *self._by_name())
        live, after = self._live(), self._links()
        self._claim("a failed canary ends the rollout", code == 1, f"exit code {code}")
        self._claim("the canary went back by itself", live[_CANARY] == "v1.0", self._shown(live))
        untouched = all(before[node] == after[node] for node in NODES[1:])
        self._claim("the others were never touched", untouched, f"`current` of {', '.join(NODES[1:])} as before")

    def _rollout_succeeds(self) -> None:
        self._heading("v1.2 is good: the canary, then the others in batches")
        code = self._run("deploy", "shop", "--ref", "v1.2", *self._by_name(), "--batch", "1")
        live = self._live()
        self._claim("v1.2 is live on all three", code == 0 and self._all(live, "v1.2"), self._shown(live))
        wrong = [line for node in NODES for line in self._differences(node, "v1.2")]
        self._claim("each release is the tag's tree", not wrong, "; ".join(wrong[:3]) or "git finds no difference")

    def _roll_back(self) -> None:
        self._heading("And back: each node to what it had before")
        code = self._run("rollback", "shop", *self._by_name())
        live = self._live()
        self._claim("v1.0 is live on all three again", code == 0 and self._all(live, "v1.0"), self._shown(live))

    def _end(self) -> None:
        listed = self._stage.run(*self._stage.command("rollout", "list", "--config", str(self._operator), "--json"))
        states = [entry["state"] for entry in json.loads(listed.output)] if listed.code == 0 else []
        known = sorted(states) == ["failed", "succeeded", "succeeded", "succeeded"]
        self._claim("the journal knows how each rollout ended", known, ", ".join(states) or listed.errors.strip())
        codes = {node: self._stage.stop(node) for node in NODES}
        self._claim("every agent ends with 0 on TERM", not any(codes.values()), f"exit codes {codes}")

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _heading(self, text: str) -> None:
        self._timeline.heading(text)

    def _run(self, *words: str) -> int:
        """Run a command that rolls something out, and let it print; return its exit code."""
        self._timeline.event("operator", f"deploykit {' '.join(words)}")
        argv = self._stage.command(*words, "--timeout", "30", "--config", str(self._operator))
        began = time.monotonic()
        if self._as_json:
            done = self._stage.run(*argv, "--json")
            for line in done.output.splitlines():
                self._timeline.rollout(line)
            code = done.code
        else:
            code = self._stage.show(*argv)
        what = words[3] if words[0] == "deploy" else "back"
        self._figures[f"{words[0]} {what}"] = time.monotonic() - began
        return code

    def _claim(self, name: str, held: bool, shown: str) -> None:
        claim = CheckedClaim(name=name, held=held, shown=shown)
        self._claims.append(claim)
        self._timeline.claim(claim)

    @staticmethod
    def _by_name() -> tuple[str, ...]:
        return tuple(word for node in NODES for word in ("-I", node))

    def _links(self) -> dict[str, str]:
        """Return where `current` of each node points; empty where there is none."""
        links = {node: self._stage.root / node / "site" / "current" for node in NODES}
        return {node: str(link.readlink()) if link.is_symlink() else "" for node, link in links.items()}

    def _live(self) -> dict[str, str]:
        """Return the version that the page of each node shows."""
        pages = {node: self._stage.root / node / "site" / "current" / "index.html" for node in NODES}
        return {
            node: page.read_text().removeprefix("<h1>Shop ").removesuffix("</h1>\n") if page.exists() else "nothing"
            for node, page in pages.items()
        }

    @staticmethod
    def _all(live: dict[str, str], tag: str) -> bool:
        return set(live.values()) == {tag}

    @staticmethod
    def _shown(live: dict[str, str]) -> str:
        shown: dict[str, list[str]] = {}
        for node, tag in live.items():
            shown.setdefault(tag, []).append(node)
        return "; ".join(f"{', '.join(nodes)}: {tag}" for tag, nodes in shown.items())

    def _differences(self, node: str, tag: str) -> list[str]:
        commit = self._stage.git("rev-parse", f"{tag}^{{commit}}", cwd=self._work)
        current = self._stage.root / node / "site" / "current"
        if not current.exists():
            return [f"{node} has no release"]
        return [f"{node}: {line}" for line in tree_differences(self._stage, self._origin, commit, current.resolve())]
