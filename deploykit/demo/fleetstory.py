"""The fleet demo's steps: three nodes, a canary that fails, a rollout that succeeds, and the way back.

Every rollout is the public command in a process of its own, and draws itself. What it claims is then looked up in the
nodes' directories.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from deploykit.demo.checks import tree_differences
from deploykit.demo.fleet import CANARY, NODES, DemoFleet
from deploykit.demo.stage import Stage
from deploykit.demo.timeline import CheckedClaim, Timeline


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
        self._fleet = DemoFleet(stage, timeline, self._figures)

    def play(self) -> bool:
        """Run all steps in order and return whether every claim held."""
        steps: tuple[Callable[[], None], ...] = (
            self._fleet.set_up_broker,
            self._fleet.set_up_origin,
            self._fleet.set_up_nodes,
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

    # -- the rollouts --------------------------------------------------------------------------------------------------

    def _first_release(self) -> None:
        self._heading("The first release, on all three")
        code = self._run("deploy", "shop", "--ref", "v1.0", *self._fleet.by_name(), "--first", "0", "--batch", "100%")
        live = self._fleet.live()
        self._claim("v1.0 is live on all three", code == 0 and self._all(live, "v1.0"), self._shown(live))

    def _canary_fails(self) -> None:
        self._heading("v1.1 is broken: the canary finds out, the others never see it")
        before = self._fleet.links()
        code = self._run("deploy", "shop", "--ref", "v1.1", *self._fleet.by_name())
        live, after = self._fleet.live(), self._fleet.links()
        self._claim("a failed canary ends the rollout", code == 1, f"exit code {code}")
        self._claim("the canary went back by itself", live[CANARY] == "v1.0", self._shown(live))
        untouched = all(before[node] == after[node] for node in NODES[1:])
        self._claim("the others were never touched", untouched, f"`current` of {', '.join(NODES[1:])} as before")

    def _rollout_succeeds(self) -> None:
        self._heading("v1.2 is good: the canary, then the others in batches")
        code = self._run("deploy", "shop", "--ref", "v1.2", *self._fleet.by_name(), "--batch", "1")
        live = self._fleet.live()
        self._claim("v1.2 is live on all three", code == 0 and self._all(live, "v1.2"), self._shown(live))
        wrong = [line for node in NODES for line in self._differences(node, "v1.2")]
        self._claim("each release is the tag's tree", not wrong, "; ".join(wrong[:3]) or "git finds no difference")

    def _roll_back(self) -> None:
        self._heading("And back: each node to what it had before")
        code = self._run("rollback", "shop", *self._fleet.by_name())
        live = self._fleet.live()
        self._claim("v1.0 is live on all three again", code == 0 and self._all(live, "v1.0"), self._shown(live))

    def _end(self) -> None:
        listed = self._stage.run(
            *self._stage.command("rollout", "list", "--config", str(self._fleet.operator), "--json")
        )
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
        argv = self._stage.command(*words, "--timeout", "30", "--config", str(self._fleet.operator))
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
    def _all(live: dict[str, str], tag: str) -> bool:
        return set(live.values()) == {tag}

    @staticmethod
    def _shown(live: dict[str, str]) -> str:
        shown: dict[str, list[str]] = {}
        for node, tag in live.items():
            shown.setdefault(tag, []).append(node)
        return "; ".join(f"{', '.join(nodes)}: {tag}" for tag, nodes in shown.items())

    def _differences(self, node: str, tag: str) -> list[str]:
        commit = self._stage.git("rev-parse", f"{tag}^{{commit}}", cwd=self._fleet.work)
        current = self._stage.root / node / "site" / "current"
        if not current.exists():
            return [f"{node} has no release"]
        return [
            f"{node}: {line}" for line in tree_differences(self._stage, self._fleet.origin, commit, current.resolve())
        ]
