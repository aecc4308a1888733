"""A fleet with everything that a console hears: an origin with the hook, a forge, builds, five agents, a console.

    with ConsoleFleet(tmp_path, broker) as world:
        world.fleet.push()                  # the hook queues it, a relay of its own sends it
        world.forge_push("refs/heads/next") # the forge has it, and only its webhook says so
        world.build("success", commit)

The console is `deploykit run agent web` as a process; it takes the webhooks, too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import httpx

from deploykit.hooking.scripts import hooks_dir
from deploykit.names import ObjectId
from tests.brokers.process import PortLease
from tests.support.chain.brokers import ChainBroker
from tests.support.chain.member import Member
from tests.support.cli import command
from tests.support.fivenodes.world import CI, FiveNodes
from tests.support.forges import ZERO, ForgedChange, ForgedCommit, forged
from tests.support.node import git
from tests.support.wait import wait_until

_SECRET: Final = b"the secret of the forge"
_FORGE_NAME: Final = "group/shop"


class ConsoleFleet:
    """See above.

    Args:
        root: an empty directory.
        broker: runs already.
    """

    def __init__(self, root: Path, broker: ChainBroker) -> None:
        self.root = root
        self.fleet = FiveNodes(root / "fleet", broker, console=True)
        self._lease = PortLease()  # the console comes back at the same address
        self._port = self._lease.port
        self._hub = self._set_up_hub()
        self._set_up_console()
        self.relay = Member("relay", command("relay", "--config", str(self._hub)), root)
        words = command("run", "agent", "web", "--config", str(self.fleet.console_file))
        self.console = Member("console", words, root, ready="ready: console at ")
        self._deliveries = 0
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """Where the console is, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> Path:
        """The directory of the console's database."""
        return self.fleet.root / "console" / "state" / "web"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._lease.release)
            self.relay.spawn()
            stack.callback(self.relay.kill)
            self.console.spawn()
            stack.callback(self.console.kill)
            stack.enter_context(self.fleet)
            self.console.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, path: str) -> Any:
        """Return the JSON of an answer of the API."""
        return httpx.get(f"{self.url}/api/v1/{path}", timeout=30).raise_for_status().json()

    def wait_shown(self) -> None:
        """Wait until every node was asked, and has answered."""
        wait_until(lambda: not (health := self.get("health"))["rebuilding"] and health["answered"] >= 5, "all answered")

    # -- what happens outside ------------------------------------------------------------------------------------------

    def forge_push(self, ref: str, commit: ObjectId) -> int:
        """Let the forge have a new ref, of which no hook of ours hears, and send its webhook; return the status."""
        git("update-ref", ref, commit, cwd=self.fleet.origin.path)
        self._deliveries += 1
        request = forged(
            "github",
            repository=_FORGE_NAME,
            changes=[ForgedChange(ref, ZERO, commit)],
            commits=[ForgedCommit(commit)],
            delivery=f"delivery-{self._deliveries}",
            secret=_SECRET,
            timestamp=int(time.time()),
        )
        url = f"{self.url}/hook/forge"
        return httpx.post(url, headers=request.headers, content=request.body, timeout=30).status_code

    def build(self, word: str, number: int, commit: ObjectId) -> None:
        """Run jenkins-notify as a build does."""
        script = str(hooks_dir() / "jenkins" / "jenkins-notify")
        build = f"https://ci.example.org/job/shop-tests/{number}/"
        environment = {
            "PATH": "/usr/bin:/bin",
            "JOB_NAME": "shop-tests",
            "BUILD_NUMBER": str(number),
            "BUILD_URL": build,
            "JENKINS_URL": "https://ci.example.org/",
            "GIT_COMMIT": commit,
            "GIT_BRANCH": "origin/main",
            "DEPLOYKIT_REPO": "shop",
            "DEPLOYKIT_REF": "refs/heads/main",
        }
        words = [sys.executable, script, "--config", str(self.root / "notify.toml"), word]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    # -- how it is set up ----------------------------------------------------------------------------------------------

    def _set_up_hub(self) -> Path:
        """Install the hook in the origin; return the settings of the relay beside it."""
        fleet, spool = self.fleet, self.root / "hub-spool"
        file = self.root / "hub.toml"
        file.touch(0o600)
        text = fleet.desk_file.read_text()
        file.write_text(
            text.replace(str(fleet.root / "desk"), str(self.root / "hub")).replace(
                str(self.root / "hub" / "spool"), str(spool)
            )
        )
        (fleet.origin.path / "deploykit.toml").write_text(_topics(text, f'repo = "shop"\nspool = "{spool}"\n'))
        key = fleet.root / f"{CI}.key"
        notify = self.root / "notify.toml"
        notify.write_text(_topics(text, f'spool = "{spool}"\nsigning_key = "{key}"\n'))
        done = subprocess.run(
            command("hooks", "install", str(fleet.origin.path)), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return file

    def _set_up_console(self) -> None:
        secret = self.root / "forge.secret"
        secret.touch(0o600)
        secret.write_bytes(_SECRET + b"\n")
        with self.fleet.console_file.open("a") as file:
            file.write(
                f'\n[web]\nlisten = "127.0.0.1:{self._port}"\n'
                f'[webhook.sources.forge]\nforge = "github"\nsecret_files = ["{secret}"]\n'
                f'repositories = {{ "{_FORGE_NAME}" = "shop" }}\n'
            )


def _topics(settings: str, text: str) -> str:
    """Return a settings file of hooks with the topics of another one."""
    return text + settings[settings.index("[topics]") :]


__all__ = ["ConsoleFleet"]
