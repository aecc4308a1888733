"""The demo of the web console: three nodes, pushes with the hook, builds and rollouts, and a page that shows them.

It goes on until somebody ends it: every few seconds there is another push, and a rollout of it.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from typing import Final

from deploykit.demo.fleet import BROKEN, CONSOLE, NODES, POST_DEPLOY, DemoFleet
from deploykit.demo.stage import Stage, free_port
from deploykit.demo.timeline import Timeline
from deploykit.errors import DemoFailed, UsageError
from deploykit.hooking.scripts import hooks_dir

#: Seconds between two scenes: time to read a page.
PAUSE: Final = 15.0
#: The first tag that the story itself makes; those before it come with the origin.
_FIRST: Final = 3
#: Every so many releases one is broken, so that there is a canary to look at.
_BROKEN_EVERY: Final = 4


class WebStory:
    """One run of the demo console.

    Args:
        stage: the directory and processes it uses.
        timeline: where it prints.
        port: of the console; 0 takes a free one.
        pause: seconds between two scenes.

    Raises:
        UsageError: something else listens on the port: its page would be taken for the demo's.
    """

    def __init__(self, stage: Stage, timeline: Timeline, *, port: int = 0, pause: float = PAUSE) -> None:
        self._stage = stage
        self._timeline = timeline
        self._pause = pause
        self._port = _checked(port) or free_port()
        self._fleet = DemoFleet(stage, timeline, {})
        self._console = stage.root / "console.toml"
        self._hub = stage.root / "hub.toml"

    @property
    def url(self) -> str:
        """Where the console is."""
        return f"http://localhost:{self._port}/"

    def play(self) -> None:
        """Set everything up, then push and deploy until it is interrupted.

        Raises:
            DemoFailed: something that it needs has ended, or did not begin.
        """
        self._fleet.set_up_broker()
        self._fleet.set_up_origin()
        self._set_up_hook()
        self._fleet.set_up_nodes()
        self._set_up_console()
        self._deploy("v1.0", "--first", "0", "--batch", "100%")
        self._deploy("v1.1")
        self._deploy("v1.2", "--batch", "1")
        number = _FIRST
        while True:
            self._wait()
            broken = number % _BROKEN_EVERY == 0
            self._push(f"v1.{number}", broken=broken)
            self._wait()
            self._deploy(f"v1.{number}", "--batch", "1")
            number += 1

    # -- the surroundings ----------------------------------------------------------------------------------------------

    def _set_up_hook(self) -> None:
        stage, fleet = self._stage, self._fleet
        spool = stage.root / "spool-hub"
        fleet.write_settings("hub", self._hub, key="operator")
        (fleet.origin / "deploykit.toml").write_text(f'repo = "shop"\nspool = "{spool}"\n')
        (stage.root / "notify.toml").write_text(f'spool = "{spool}"\nsigning_key = "{stage.root / "operator.key"}"\n')
        self._hub.write_text(self._hub.read_text().replace(str(stage.root / "hub" / "spool"), str(spool)))
        stage.must(*stage.command("hooks", "install", str(fleet.origin)))
        stage.start("relay", *stage.command("relay", "--config", str(self._hub)))
        self._timeline.event("hook", f"installed in {fleet.origin}; a relay sends what it queues")

    def _set_up_console(self) -> None:
        stage = self._stage
        more = f'\n[web]\nlisten = "127.0.0.1:{self._port}"\n'
        # The agent beside it answers as well: else the console shows it as a node that does not.
        more += f'\n[[trust.grants]]\nprincipal = "{CONSOLE}"\ntypes = ["node.queried"]\n'
        self._fleet.write_settings(CONSOLE, self._console, more=more)
        stage.start(CONSOLE, *stage.command("run", "agent", "web", "--config", str(self._console)))
        stage.wait(self._answers, "the console to answer", timeout=60)
        self._timeline.heading(f"The console is at {self.url}")
        self._timeline.event("operator", f"open {self.url} and leave it open; Ctrl-C ends everything")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}api/v1/sites", timeout=2) as answer:  # noqa: S310 -- our own address
                return "shop" in json.dumps(json.load(answer))
        except (OSError, ValueError):
            return False

    # -- the scenes ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until the next scene, and find out early when a process has ended."""
        end = time.monotonic() + self._pause
        self._stage.wait(lambda: time.monotonic() >= end, "the next scene", timeout=self._pause + 60)

    def _push(self, tag: str, *, broken: bool) -> None:
        stage, fleet = self._stage, self._fleet
        what = "a release whose front page is broken" if broken else "another release"
        fleet.release(tag, what, BROKEN if broken else POST_DEPLOY)
        stage.git("push", "--quiet", "--tags", "origin", "main", cwd=fleet.work)
        self._timeline.event("developer", f"git push main {tag} ({what})")
        commit = stage.git("rev-parse", f"{tag}^{{commit}}", cwd=fleet.work)
        build = {"JOB_NAME": "shop-tests", "BUILD_NUMBER": tag.rpartition(".")[2], "GIT_COMMIT": commit}
        build |= {"GIT_BRANCH": "origin/main", "BUILD_URL": f"https://ci.example.org/job/shop-tests/{tag[3:]}/"}
        build |= {
            "DEPLOYKIT_REPO": "shop",
            "DEPLOYKIT_REF": "refs/heads/main",
            "JENKINS_URL": "https://ci.example.org/",
        }
        for word in ("begin", "success"):
            self._notify(word, build)
        self._timeline.event("builder", f"shop-tests #{build['BUILD_NUMBER']} succeeded")

    def _notify(self, word: str, build: Mapping[str, str]) -> None:
        script = str(hooks_dir() / "jenkins" / "jenkins-notify")
        done = self._stage.run(
            sys.executable, script, "--config", str(self._stage.root / "notify.toml"), word, env=build
        )
        if done.code != 0:
            raise DemoFailed(f"jenkins-notify ended with {done.code}: {done.errors.strip()}")

    def _deploy(self, tag: str, *more: str) -> None:
        words = ("deploy", "shop", "--ref", tag, *self._fleet.by_name(), *more)
        self._timeline.event("operator", f"deploykit {' '.join(words)}")
        where = ("--timeout", "30", "--config", str(self._fleet.operator), "--json")
        done = self._stage.run(*self._stage.command(*words), *where)
        ended = "succeeded" if done.code == 0 else "stopped at the canary"
        self._timeline.event("node", f"{', '.join(NODES)}: the rollout of {tag} {ended}")


def _checked(port: int) -> int:
    """Return a port, if it is free.

    Raises:
        UsageError: it is in use, or needs root.
    """
    try:
        with socket.create_server(("127.0.0.1", port)):
            return port
    except OSError as error:
        problem = f"--port: cannot listen on port {port}: {error.strerror}"
        raise UsageError(problem, "stop what uses it, or choose another") from error


__all__ = ["PAUSE", "WebStory"]
