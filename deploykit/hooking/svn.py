"""Subversion's post-commit (REPO REV TXN) to a message: one revision, and all the projects it touches.

Rules:

* Subversion runs hooks in an empty environment, where svnlook would escape anything but ASCII: it gets C.UTF-8.
* svnlook alone is asked what a commit changed, by revision number. A path becomes an argument only where a whole
  directory was copied or deleted, to list what is in it.
* Where svnlook is missing, fails or takes too long, the event is queued without its answer.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import NamedTuple

from deploykit.errors import HookError
from deploykit.hooking.console import print_line
from deploykit.hooking.enqueue import enqueue
from deploykit.hooking.origin import host_source, repository_name
from deploykit.hooking.process import NoAnswer, Program, child_environment, run_program
from deploykit.messages.base import new_id
from deploykit.messages.source import COMMIT_TEXT, DIR_TEXT, MAX_DIRS, NAME_TEXT, RevisionCommitted, svn_projects
from deploykit.settings.hooks import HookSettings, load_hook_settings, read_plain

#: How many projects one event names, and in how many characters: with its other fields, they fit a message.
_PROJECTS, _PROJECT_TEXT = 1000, 100_000
#: How many copied or deleted directories are searched for projects.
_LOOKED_INTO = 100


class Info(NamedTuple):
    """The parsed output of `svnlook info`."""

    author: str = ""
    committed: datetime | None = None
    log: str = ""


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """Queue the event of one revision and return the exit code; see `deploykit.hooking.run`."""
    if len(argv) < 2 or not argv[1].isdecimal() or not argv[1].isascii():
        raise HookError("Subversion gives a repository and a revision", "is this script its hooks/post-commit?")
    path, revision = os.path.realpath(argv[0]), int(argv[1])
    settings = load_hook_settings(path)
    strict[0] = settings.strict
    message, notes = message_of(path, revision, settings, os.environ)
    print_line(str(enqueue([message], settings, os.environ, notes=notes)))
    return 0


def message_of(
    path: str, revision: int, settings: HookSettings, environ: Mapping[str, str]
) -> tuple[RevisionCommitted, tuple[str, ...]]:
    """Return the event of one revision, and notes for a person.

    Raises:
        HookError: there is no such revision.
    """
    info_text, dirs, changed = "", "", ""
    notes: tuple[str, ...] = ()
    deadline = monotonic() + settings.timeout
    try:
        info_text, dirs, changed = _look(path, revision, deadline, environ)
    except HookError as error:
        if not isinstance(error, NoAnswer) and not _is_there(path, revision):
            raise
        notes = (f"without author, log and directories: {error}",)
    info = parse_info(info_text)
    listed = [line for line in dirs.split("\n") if line]
    layout = {*settings.trunk, *settings.branches, *settings.tags}
    touched = changed_dirs(changed)
    try:
        for found in _inside(path, revision, whole_dirs(changed, layout), layout, deadline, environ):
            touched.append(found)
    except HookError as error:
        notes = (*notes, f"projects may be missing: {error}")
    thread = new_id()
    message = RevisionCommitted(
        id=thread,
        correlation_id=thread,
        source=host_source("svn"),
        repo=repository_name(path, settings, environ),
        revision=revision,
        author=info.author[:NAME_TEXT],
        committed=info.committed,
        log=info.log[:COMMIT_TEXT],
        dirs=tuple([line for line in listed if len(line) <= DIR_TEXT][:MAX_DIRS]),
        dir_count=len(listed),
        projects=fitting(svn_projects(touched, layout)),
    )
    return message, notes


def _is_there(path: str, revision: int) -> bool:
    """Return whether `db/current` of the repository includes a revision.

    The `svnlook` on PATH may be of another Subversion than the one that runs the hook, and fail at its format.
    """
    try:
        return revision <= int(read_plain(f"{path}/db/current", 100).split()[0])
    except (OSError, ValueError, IndexError):
        return False


def _look(path: str, revision: int, deadline: float, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the output of `svnlook` info, dirs-changed and changed; all three run at once."""
    env = child_environment(environ, {})
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                Program(("svnlook", *what, "-r", str(revision), path), env=env, deadline=deadline, stdin=b"")
            )
            for what in (("info",), ("dirs-changed",), ("changed", "--copy-info"))
        ]
        info, dirs, changed = (each.output(256 << 20).decode("utf-8", "replace") for each in programs)
    return info, dirs, changed


def _inside(
    path: str,
    revision: int,
    whole: Sequence[tuple[str, bool]],
    layout: Container[str],
    deadline: float,
    environ: Mapping[str, str],
) -> Iterator[str]:
    """Yield the directories of the layout inside directories that were copied or deleted; see `whole_dirs`.

    Raises:
        HookError: svnlook failed, or there are too many directories to search.
    """
    env = child_environment(environ, {})
    queued = deque(whole)
    for _ in range(_LOOKED_INTO):
        if not queued:
            return
        directory, gone = queued.popleft()
        words = ("svnlook", "tree", "-N", "--full-paths", "-r", str(revision - gone), path, "/" + directory)
        listed = run_program(words, env=env, deadline=deadline, limit=16 << 20).decode("utf-8", "replace")
        inner = [line[1:] for line in listed.split("\n") if line.endswith("/") and line[1:] != directory]
        here = [each for each in inner if each.split("/")[-2] in layout]
        yield from here
        if not here:
            queued.extend((each, gone) for each in inner)
    if queued:
        raise HookError(f"more than {_LOOKED_INTO} directories outside any project were copied or deleted")


def whole_dirs(changed: str, layout: Container[str]) -> list[tuple[str, bool]]:
    """Return the directories that `svnlook changed --copy-info` lists as copied, or deleted (True), without content.

    Those inside a project are left out.

    >>> whole_dirs("A   web/\\nD   old/\\nA + new/\\n    (from web/:r7)\\nA + lib/trunk/x/\\n", {"trunk"})
    [('old/', True), ('new/', False)]
    """
    lines = [(line[:4], line[4:]) for line in changed.split("\n")]
    return [
        (path, what[0] == "D")
        for what, path in lines
        if what in ("A + ", "D   ") and path.endswith("/") and not any(part in layout for part in path.split("/"))
    ]


def fitting(projects: Sequence[str]) -> tuple[str, ...]:
    """Return as many of the projects as one message can name. A directory's name may be of any length."""
    kept = list[str]()
    left = _PROJECT_TEXT
    for project in projects:
        if len(project) <= left and len(kept) < _PROJECTS:
            kept.append(project)
            left -= len(project)
    return tuple(kept)


def changed_dirs(changed: str) -> list[str]:
    """Return the directories in `svnlook changed --copy-info`, and those of the files in it.

    `dirs-changed` would not do: where a whole project is added, deleted or copied, it names only the directory above.
    """
    paths = (line[4:] for line in changed.split("\n") if len(line) > 4 and line[0] != " ")
    return list(dict.fromkeys(path if path.endswith("/") else path.rpartition("/")[0] + "/" for path in paths))


def parse_info(text: str) -> Info:
    """Parse `svnlook info`: author, date, length of the log, the log."""
    author, _, rest = text.partition("\n")
    date, _, rest = rest.partition("\n")
    return Info(author.strip(), parse_date(date), rest.partition("\n")[2].strip("\n"))


def parse_date(text: str) -> datetime | None:
    """Parse `2012-04-19 10:00:00 +0100 (Thu, 19 Apr 2012)`; return None where a revision has no date."""
    try:
        return datetime.strptime(text.partition(" (")[0], "%Y-%m-%d %H:%M:%S %z").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
