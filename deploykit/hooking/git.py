"""git's post-receive: the lines `OLD NEW REF` of one push to messages, all refs in one go.

Rules:

* Ids and names come from git and are parsed.
* Commit data is read by two git processes at most for a push of any size, one for most (see `repository`).
* What git does not answer in time is left out; the event is queued all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

from deploykit.errors import HookError, InvalidName
from deploykit.hooking.console import print_line
from deploykit.hooking.enqueue import Queued, enqueue
from deploykit.hooking.origin import host_source, pusher, repository_name
from deploykit.hooking.repository import Change, PushedRepository, RefHistory
from deploykit.messages.base import new_id, utc_now
from deploykit.messages.source import RefUpdated
from deploykit.names import RefName, RepoName, parse_object_id, parse_ref_name
from deploykit.settings.hooks import HookSettings, load_hook_settings


class Push(NamedTuple):
    """The parsed lines: changes to report, how many refs the settings leave out, and why other lines were refused."""

    changes: tuple[Change, ...]
    left_out: int
    refused: tuple[str, ...]


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """Queue the events of one push and return the exit code; see `deploykit.hooking.run`."""
    environ = os.environ
    git_dir = os.path.realpath(environ.get("GIT_DIR") or ".")
    repository = PushedRepository(git_dir, environ)
    settings = load_hook_settings(git_dir, config=repository.config())
    strict[0] = settings.strict
    queued, push = announce(repository, settings, stdin, environ)
    print_line(str(queued))
    return 1 if settings.strict and push.refused else 0


def announce(
    repository: PushedRepository, settings: HookSettings, lines: bytes, environ: Mapping[str, str]
) -> tuple[Queued, Push]:
    """Queue the events of one push; return what was queued, and the parsed lines."""
    messages, push, notes = messages_of(repository, settings, lines, environ)
    return enqueue(messages, settings, environ, notes=notes), push


def messages_of(
    repository: PushedRepository, settings: HookSettings, lines: bytes, environ: Mapping[str, str]
) -> tuple[list[RefUpdated], Push, tuple[str, ...]]:
    """Return the events of one push, the parsed lines, and notes for the person who pushes.

    Raises:
        HookError: the repository's name is not acceptable.
    """
    push = parse_push(lines, settings.refs, within=namespace(environ))
    notes: list[str] = []
    if push.refused:
        more = f" and {len(push.refused) - 1} more" if len(push.refused) > 1 else ""
        notes.append(f"left out {push.refused[0]}{more}")
    if push.left_out:
        is_are = "ref is" if push.left_out == 1 else "refs are"
        notes.append(f"{push.left_out} {is_are} not among `refs` in the settings")
    if not push.changes:
        return [], push, tuple(notes)
    name = repository_name(repository.path, settings, environ)
    try:
        histories = repository.histories(push.changes, deadline=monotonic() + settings.timeout)
    except (HookError, OSError) as error:
        histories = [RefHistory() for _ in push.changes]
        notes.append(f"without their commits: {error}")
    pairs = zip(push.changes, histories, strict=True)
    return _messages(name, pairs, pusher(environ)), push, tuple(notes)


def namespace(environ: Mapping[str, str]) -> str:
    """Return the prefix that git leaves out of the ref names in a push to a namespace (gitnamespaces(7)), or ""."""
    parts = environ.get("GIT_NAMESPACE", "").split("/")
    return "".join(f"refs/namespaces/{part}/" for part in parts if part)


def parse_push(lines: bytes, refs: Sequence[str], *, within: str = "") -> Push:
    """Parse what git writes to the hook: `OLD NEW REF`, a line for each ref.

    Args:
        lines: as they came; a ref may hold any bytes.
        refs: patterns of the refs to report.
        within: the prefix of the refs; see `namespace`.
    """
    changes: list[Change] = []
    refused: list[str] = []
    left_out = 0
    for line in lines.split(b"\n"):
        if not line:
            continue
        old, _, rest = line.partition(b" ")
        new, _, ref = rest.partition(b" ")
        try:
            name = parse_ref_name(within + ref.decode("utf-8", "surrogateescape"))
            if not wanted(name, refs):
                left_out += 1
                continue
            ids = (parse_object_id(each.decode("ascii", "replace")) for each in (old, new))
            changes.append(Change(next(ids), next(ids), name))
        except InvalidName as error:
            refused.append(error.problem)
    return Push(tuple(changes), left_out, tuple(refused))


def wanted(ref: RefName, patterns: Sequence[str]) -> bool:
    """Return whether a ref matches one of the patterns."""
    for pattern in patterns:
        if pattern.endswith("/*") and "*" not in pattern[:-1]:  # a prefix: the usual case, and quick to check
            if ref.startswith(pattern[:-1]):
                return True
        else:
            from fnmatch import fnmatchcase

            if fnmatchcase(ref, pattern):
                return True
    return False


def _messages(repo: RepoName, pairs: Iterable[tuple[Change, RefHistory]], who: str) -> list[RefUpdated]:
    """Return one event for each ref; all have the first one's id as correlation id."""
    thread = new_id()
    source, now = host_source("git"), utc_now()
    return [
        RefUpdated(
            id=new_id() if number else thread,
            source=source,
            time=now,
            correlation_id=thread,
            repo=repo,
            ref=change.ref,
            old=change.old,
            new=change.new,
            forced=history.forced,
            pusher=who,
            commits=history.commits,
            commit_count=history.total,
        )
        for number, (change, history) in enumerate(pairs)
    ]
