"""The demo of the web console: three nodes with a history, and a page from which one presses, signs and goes back.

It goes on until somebody ends it. What the operators would do meanwhile it does for them: it distributes the lines of
signing keys that are enrolled.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from deploykit.config import load_settings
from deploykit.demo.fleet import CANARY, CONSOLE, NODES, POST_DEPLOY, YOU, DemoFleet
from deploykit.demo.stage import Stage, free_port
from deploykit.demo.timeline import Timeline
from deploykit.errors import DemoFailed, UsageError
from deploykit.hooking.scripts import hooks_dir

#: Seconds between two looks at what was enrolled.
_STEP: Final = 0.5
#: What a person sees above every page.
TRY: Final = (
    "Try it: put v2.0 live on shop, find out why it failed, put v2.1 live, go back. Then lock shop; give somebody "
    f"access to docs; or deploy to bank, which your passkey must sign, as {YOU} (its line is distributed for you)."
)
_BROKEN: Final = """#!/bin/sh
echo "asking the shop for its front page"
sleep 0.3
echo "500 Internal Server Error" >&2
echo "prices.json: no price for 'green tea'" >&2
exit 1
"""


class WebStory:
    """One run of the demo console.

    Args:
        stage: the directory and processes it uses.
        timeline: where it prints.
        port: of the console; 0 takes a free one.

    Raises:
        UsageError: something else listens on the port: its page would be taken for the demo's.
    """

    def __init__(self, stage: Stage, timeline: Timeline, *, port: int = 0) -> None:
        self._stage = stage
        self._timeline = timeline
        self._port = _checked(port) or free_port()
        self._origin = self.url.rstrip("/")
        self._fleet = DemoFleet(stage, timeline, {}, origin=self._origin)
        self._console = stage.root / "console.toml"
        self._hub = stage.root / "hub.toml"

    @property
    def url(self) -> str:
        """Where the console is."""
        return f"http://localhost:{self._port}/"

    def play(self) -> None:
        """Set everything up, then look after it until it is interrupted.

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
        self._push("v2.0", "a new front page", _BROKEN)
        self._push("v2.1", "the new front page, with all prices", POST_DEPLOY)
        self._timeline.event("operator", f"open {self.url}; Ctrl-C ends everything")
        self._timeline.event("demo", TRY)
        self._look_after()

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
        stage, mirroring = self._stage, self._stage.root / "console-mirror.toml"
        web = (
            f'\n[web]\nlisten = "127.0.0.1:{self._port}"\nurl = "{self.url.rstrip("/")}"\nbanner = {json.dumps(TRY)}\n'
        )
        self._fleet.write_console(self._console, more=web)
        # An agent beside it keeps the mirror from which plans are compared. It has no site, so it is no node of one.
        more = f'\n[[trust.grants]]\nprincipal = "{CONSOLE}"\ntypes = ["node.queried"]\n'
        self._fleet.write_settings(CONSOLE, mirroring, more=more)
        stage.start("mirror", *stage.command("agent", "--config", str(mirroring)))
        stage.start(CONSOLE, *stage.command("web", "--config", str(self._console)))
        stage.wait(self._answers, "the console to answer", timeout=60)
        self._timeline.heading(f"The console is at {self.url}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}api/v1/sites", timeout=2) as answer:  # noqa: S310 -- our own address
                return "shop" in json.dumps(json.load(answer))
        except (OSError, ValueError):
            return False

    # -- what happens --------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Distribute the lines of keys that are enrolled."""
        from deploykit.web.ledger.ledger import Ledger

        settings, known = load_settings(self._console), set[str]()
        with closing(Ledger.open(settings.web, settings.state)) as ledger:
            while True:
                for key in ledger.passkeys.list(purpose="signing"):
                    if key.credential not in known:
                        known.add(key.credential)
                        self._distribute(key.label, key.line)
                self._pause(time.monotonic() + _STEP)

    def _pause(self, until: float) -> None:
        """Wait, and find out early when a process has ended."""
        self._stage.wait(lambda: time.monotonic() >= until, "the next look", timeout=60)

    def _distribute(self, label: str, line: str) -> None:
        """Append a line of a signing key to the file of all nodes, as operators would once they know whose it is."""
        with (self._stage.root / "allowed_signers").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self._timeline.event("operator", f"distributed the line of the key {label!r} to {CANARY} and the others")

    def _push(self, tag: str, what: str, script: str) -> None:
        stage, fleet = self._stage, self._fleet
        fleet.release(tag, what, script)
        stage.git("push", "--quiet", "--tags", "origin", "main", cwd=fleet.work)
        self._timeline.event("developer", f"git push main {tag} ({what})")
        commit = stage.git("rev-parse", f"{tag}^{{commit}}", cwd=fleet.work)
        number = str(10 * int(tag[1]) + int(tag[3:]))
        build = {"JOB_NAME": "shop-tests", "BUILD_NUMBER": number, "GIT_COMMIT": commit}
        build |= {"GIT_BRANCH": "origin/main", "BUILD_URL": f"https://ci.example.org/job/shop-tests/{number}/"}
        build |= {
            "DEPLOYKIT_REPO": "shop",
            "DEPLOYKIT_REF": "refs/heads/main",
            "JENKINS_URL": "https://ci.example.org/",
        }
        for word in ("begin", "success"):
            self._notify(word, build)
        self._timeline.event("builder", f"shop-tests #{number} succeeded")

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


__all__ = ["TRY", "WebStory"]
