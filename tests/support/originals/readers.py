"""The original's daemons: each takes one topic, splits every line at its first `:`, and ends where it ended."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

from tests.support.originals.oldstomp import OldFrame, OldStomp
from tests.support.originals.publishers import OldBus


def keyed(text: str) -> dict[str, str]:
    """Return every line of a body, split at its first `:`; the last one of a key wins."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            found[key.strip()] = value.strip()
    return found


class OldDaemon:
    """A daemon in a thread. What comes while it is down is lost to it: it is not durable.

    Args:
        bus: what it hears, and where its human lines go.
        topics: to which it subscribes.
        newer: speaks STOMP 1.1.
    """

    program = ""

    def __init__(self, bus: OldBus, topics: Sequence[str], *, newer: bool = False) -> None:
        self.bus = bus
        self.heard: list[OldFrame] = []
        self.died: Exception | None = None
        self._stomp = OldStomp(bus.address, newer=newer)
        try:
            for number, topic in enumerate(topics):
                self._stomp.subscribe(bus.topic(topic), number)
                while self._stomp.receive().command != "RECEIPT":
                    continue
        except BaseException:
            self._stomp.close()
            raise
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended = True
        self._stomp.cut()
        self._thread.join(30)

    @property
    def runs(self) -> bool:
        """Whether it has not died."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                frame = self._stomp.receive()
                if frame.command == "MESSAGE":
                    self.handle(frame)
                    self.heard.append(frame)
        except Exception as error:
            if not self._ended:
                self.died = error
        with contextlib.suppress(OSError):
            self._stomp.close()

    def say(self, line: str) -> None:
        """Publish a line for people, with the machine's name first."""
        self.bus.human(self.program, f"oldhost {line}")

    def handle(self, frame: OldFrame) -> None:
        """Take a message; what it raises ends the daemon."""


class OldEventbot(OldDaemon):
    """The bot that shows every line of the events topics in a chat."""

    SHOWN = ("gitolite", "svnserver", "gitlab", "jenkins", "repository", "stageaccess", "stompgit")

    def __init__(self, bus: OldBus) -> None:
        super().__init__(bus, [f"events.{name}" for name in self.SHOWN])

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Return what it has shown: the topic's last word, and the text."""
        return [(f.headers["destination"].rpartition(".")[2], f.text) for f in list(self.heard)]


@dataclass(frozen=True)
class OldProject:
    """What `jenkins-projects` says of one. Without `ignore_refs` (None) it is never built. [seen]"""

    project: str
    ticket: str
    ignore_refs: str | None = ""


class OldJenkinsTrigger(OldDaemon):
    """stomp-jenkins: a GET for each message of a repository it knows, deletions too. [seen]

    Args:
        bus: what it hears.
        url: of Jenkins.
        projects: repository -> its project, or SVN project -> project.
    """

    program = "jenkins"

    def __init__(self, bus: OldBus, url: str, projects: Mapping[str, OldProject | Mapping[str, OldProject]]) -> None:
        self._url, self._projects = urlsplit(url), projects
        self.asked: list[str] = []
        super().__init__(bus, ["git.commits"])

    def handle(self, frame: OldFrame) -> None:
        if frame.text == "\n":
            return
        fields = keyed(frame.text)
        found = self._projects.get(fields.get("repo", ""))
        if isinstance(found, Mapping):
            found = found.get(fields.get("Project", ""))
        if found is None:
            return
        if found.ignore_refs is None or (found.ignore_refs and re.search(found.ignore_refs, fields.get("refname", ""))):
            return  # nil matches everything: never built [seen]
        path = f"{self._url.path.rstrip('/')}/job/{found.project}/build"
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=60)
        connection.request("GET", f"{path}?token={found.ticket}")  # Jenkins down: the daemon dies [seen]
        connection.getresponse().read()  # whatever it says [seen]
        connection.close()
        self.asked.append(path)
        self.say(f"Requested Jenkins build: {frame.headers['subject']} / {found.project.replace('%20', '_')}")


@dataclass(frozen=True)
class OldAccessSite:
    """What `sites` says of one: `nginx` or `haproxy`, the server's file, and the daemon's own list of users."""

    kind: str
    file: Path
    users: Path


class OldAccessDaemon(OldDaemon):
    """stomp-access: an entry for fourteen days. Every hash it stores is `*0`, which lets nobody in. [seen]"""

    program = "stageaccess"

    def __init__(self, bus: OldBus, sites: Mapping[str, OldAccessSite]) -> None:
        self._sites = sites
        super().__init__(bus, ["access.stage"], newer=True)

    def handle(self, frame: OldFrame) -> None:
        fields = keyed(frame.text)
        site = self._sites.get(fields.get("Site", ""))
        if site is None:
            return  # a keepalive, or a site of others
        listed = yaml.safe_load(site.users.read_text()) if site.users.exists() else None
        users: dict[str, dict[str, str]] = listed or {}
        today = datetime.now(UTC)
        users = {user: entry for user, entry in users.items() if _day(entry["expiry"]) >= today}  # only here [seen]
        expiry = f"{today + timedelta(days=14):%c}"
        users[fields.get("User", "")] = {"expiry": expiry, "password": "*0"}
        site.users.write_text(yaml.safe_dump(users))
        lines = [f"userlist {site.file.name}"]  # in files for nginx, too
        for user, entry in users.items():
            hashed = entry["password"]
            lines.append(f"\tuser {user} password {hashed}" if site.kind == "haproxy" else f"{user}:{hashed}")
        site.file.write_text("\n".join(lines) + "\n")
        self.say(f"Added {fields.get('User', '')} to {fields['Site']}")


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%c").replace(tzinfo=UTC)


class OldPackageDaemon(OldDaemon):
    """stomp-repo: reads the package lists when a package of interest has changed; installs nothing.

    Args:
        bus: what it hears.
        names: of the packages of interest.
        update: the command, `apt-get update`.
    """

    program = "repository"

    def __init__(self, bus: OldBus, names: Sequence[str], update: Sequence[str]) -> None:
        self._names, self._update = names, tuple(update)
        super().__init__(bus, ["package.updates"])

    def handle(self, frame: OldFrame) -> None:
        file = keyed(frame.text).get("package", "")
        if file.partition("_")[0] in self._names:
            subprocess.run(self._update, check=False, timeout=60)


__all__ = [
    "OldAccessDaemon",
    "OldAccessSite",
    "OldDaemon",
    "OldEventbot",
    "OldJenkinsTrigger",
    "OldPackageDaemon",
    "OldProject",
    "keyed",
]
