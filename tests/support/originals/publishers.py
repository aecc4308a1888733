"""What the original's publishers send. Each event is a connection of its own; nobody waits for a receipt."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.originals.oldstomp import OldStomp

ZEROS = "0" * 40
EVENTBOT = "Talking to eventbot"


class OriginalCrash(Exception):
    """The original ended here with a stack trace, having sent nothing more."""


@dataclass(frozen=True)
class OldBus:
    """Where the original's programs publish.

    Args:
        address: `stomp://LOGIN:PASSCODE@HOST:PORT`.
        prefix: of the owner's topics; the original's own is `future`.
    """

    address: str
    prefix: str = "future"

    def topic(self, name: str) -> str:
        """Return the destination of a topic."""
        return f"/topic/{self.prefix}.{name}"

    def tell(self, name: str, body: str, subject: str | None = None) -> None:
        """Connect, send one event, and go; where the broker is down this is an error (the original hung). [seen]"""
        stomp = OldStomp(self.address)
        try:
            stomp.send(name if name.startswith("/") else self.topic(name), body, subject)
        finally:
            stomp.close()

    def human(self, program: str, line: str) -> None:
        """Send one line for people."""
        self.tell(f"events.{program}", line, EVENTBOT)


def _output(*words: str) -> str:
    """Return what a program prints in an empty environment, as hooks have it."""
    done = subprocess.run(words, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True, timeout=60)
    return done.stdout.decode("utf-8", "replace")


def git_post_receive(bus: OldBus, repo: str, directory: Path, lines: str) -> None:
    """Announce each line of a push; only the head commit is told. [seen]

    Raises:
        OriginalCrash: a branch or a tag was deleted: nothing is sent. [seen]
    """
    for line in lines.splitlines():
        old, new, ref = line.split(" ", 2)
        if new == ZEROS:
            raise OriginalCrash("deleted ref")
        shown = _output("git", "-C", str(directory), "log", "-1", "--format=%H%nAuthor: %an%nDate: %ad%n%n%B", new)
        body = f"repo: {repo}\noldrev: {old}\nnewrev: {new}\nrefname: {ref}\n {shown.rstrip()}\n\n"
        bus.tell("git.commits", body, f"[{repo}] {ref} {new}")
        bus.human("gitolite", f"[{repo}] {ref} {new}")


def svn_post_commit(bus: OldBus, repo: str, directory: Path, revision: str) -> None:
    """Announce a revision: one project, taken from the first directory; under `tags` it is a wrong one."""
    author, date, log, changed = (
        _output("svnlook", word, "-r", revision, str(directory)).strip()
        for word in ("author", "date", "log", "dirs-changed")
    )
    dirs = changed.splitlines()
    project = re.sub(r"/trunk.*", "", dirs[0]).strip("/").rpartition("/")[2] if dirs else ""
    listed = "\n".join(dirs)
    body = (
        f"repo: {repo}\nrevname: {revision}\n Author: {author}\nDate: {date}\nProject: {project}\n\n"
        f"Dirs:\n{listed}\n\n{log}\n\n"
    )
    bus.tell("git.commits", body, f"[{repo}] {revision} ")
    bus.human("svnserver", f"[{repo}] {revision} {author}")


def webhook(bus: OldBus, payload: Mapping[str, Any], *, with_json: bool = False) -> None:
    """Answer a push of GitLab.

    Args:
        bus: where it is announced.
        payload: of GitLab.
        with_json: add the `JSON:` line that the updater wants; no published sender does.

    Raises:
        OriginalCrash: status 500. `commits` in the payload is one reason. [seen]
    """
    if payload.get("object_kind", "push") != "push":
        return  # a tag: 200, and nothing is sent [seen]
    if "commits" in payload and not with_json:
        raise OriginalCrash("undefined: commits.length")
    found = re.search(r"/(.*)\.git\Z", payload["repository"]["url"])  # from the *first* slash on [seen]
    if found is None:
        raise OriginalCrash("no repository in the address")
    repo, ref, old, new = found[1], payload["ref"], payload["before"], payload["after"]
    body = f"repo: {repo}\noldrev: {old}\nnewrev: {new}\nrefname: {ref}\n"
    for commit in payload.get("commits", ()):
        author, message = commit["author"]["email"], commit["message"].replace("\n", " ")
        body += f" commit {commit['id']}\nAuthor: {author}\nDate: {commit['timestamp']}\n\t{message}\n\n"
    if with_json:
        body += f"JSON: {json.dumps(payload)}\n"
    bus.tell("git.commits", body, f"[{repo}] {ref} {new}")
    bus.human("gitlab", f"{payload.get('user_name')} pushed unknown commit(s) to {repo} - /commits/{new} (webhook)")


def jenkins_helper(bus: OldBus, option: str, env: Mapping[str, str]) -> None:
    """Announce a build: `-b` begun, `-p` passed, `-c` cake. A begun one goes to a topic without a name. [seen]"""
    verb, status, where = {
        "-b": ("Begin", "Start job", "/topic/"),
        "-p": ("Complete", "Success", "jenkins.success"),
        "-c": ("Fail", "Cake", "jenkins.cake"),
    }[option]
    branch = env.get("GIT_BRANCH", "")
    repo = branch.partition("/")[0]
    subject = f"{verb} job {env['BUILD_NUMBER']} - [{env['JOB_NAME']}] {branch} {env.get('GIT_COMMIT', '')}"
    bus.tell(where, f"Repo: {repo}\nURL: {env['BUILD_URL']}\nStatus: {status}\n", subject)
    bus.human("jenkins", subject)


def reprepro_cron(bus: OldBus, file: str, distribution: str, output: str = "Exporting indices...\n") -> None:
    """Announce a package, also where reprepro has failed; the distribution is in the human line only."""
    inspected = json.dumps(output)  # one line of Ruby's inspect: line ends as two characters
    bus.tell("package.updates", f"package: {file}\n{inspected}", f"Package update: [{file}]")
    bus.human("repository", f"Package {file} / {distribution} added to repository.")


def access_form(bus: OldBus, site: str, user: str) -> str:
    """Ask for an access; return the password, which the original's page never showed (500). [seen]

    Args:
        bus: where it is asked for.
        site: what the list of the form sends; only labels such as `Example site` pass its checks. [seen]
        user: an address. A line end in it would add lines and a header. [seen]
    """
    password = "".join(random.choice("aeiou" if n % 2 else "bdfgklmnprst") for n in range(12))
    line = f"Allow access to {site} for {user}"
    bus.human("stageaccess", line)  # before the grant itself
    bus.tell("access.stage", f"Site: {site}\nUser: {user}\nPassword: {password}\n", line)
    return password


def keepalive(bus: OldBus, *destinations: str) -> None:
    """Send a line end, without a subject, to topics or queues."""
    for destination in destinations:
        bus.tell(destination, "\n")


__all__ = [
    "EVENTBOT",
    "ZEROS",
    "OldBus",
    "OriginalCrash",
    "access_form",
    "git_post_receive",
    "jenkins_helper",
    "keepalive",
    "reprepro_cron",
    "svn_post_commit",
    "webhook",
]
