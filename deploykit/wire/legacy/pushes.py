"""The original's text bodies of pushes and revisions to messages; a part of `decoder`, whose rules hold here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages import MAX_COMMITS, MAX_DIRS, Commit, Message, RefUpdated, RevisionCommitted, svn_projects
from deploykit.messages.source import COMMIT_TEXT, DIR_TEXT, NAME_TEXT
from deploykit.names import RepoName, is_zero, parse_object_id, parse_ref_name, parse_repo_name
from deploykit.wire.field_types import MAX_COUNT
from deploykit.wire.frame import ID_HEADER
from deploykit.wire.strictjson import parse

T = TypeVar("T")


def named(parse_name: Callable[[object], T], head: Mapping[str, str], key: str) -> T:
    """Return the parsed name that a key of the first lines holds; the error names the key, never the value."""
    value = head.get(key, "")
    try:
        if "\ufffd" in value:
            raise MessageError("not UTF-8")
        return parse_name(value)
    except DeploykitError as e:
        raise MessageError(f"{key}: {e.problem.partition(':')[0]}", e.remedy) from None


def or_else(check: Callable[[object], T], value: object, otherwise: T) -> T:
    """Return the checked value, or `otherwise` if it is not acceptable."""
    try:
        return check(value)
    except DeploykitError:
        return otherwise


# -- git ---------------------------------------------------------------------------------------------------------------


def ref_updated(head: Mapping[str, str], rest: str, _headers: Mapping[str, str], envelope: dict[str, Any]) -> Message:
    """Return the message of a git hook or a webhook."""
    new = named(parse_object_id, head, "newrev")
    message = RefUpdated(
        repo=named(_repository, head, "repo"),
        ref=named(parse_ref_name, head, "refname"),
        old=named(parse_object_id, head, "oldrev"),
        new=new,
        **envelope,
    )
    payload = _payload(rest, head)
    if payload is not None:
        return _with_payload(message, payload)
    commits = () if is_zero(new) else _commits(rest)
    return attrs.evolve(message, commits=commits[:MAX_COMMITS], commit_count=len(commits))


def _repository(text: object) -> RepoName:
    """Return the name of a repository as a hook or the original's webhook sender wrote it.

    The sender cut it from the clone URL: of `https://HOST/group/name.git` it left `/HOST/group/name`. The host is
    dropped: it is no part of the name, may hold a password, and no other name begins with a slash.
    """
    if isinstance(text, str) and text.startswith("/"):
        host, _, path = text[1:].partition("/")
        return parse_repo_name(path if host else text)
    return parse_repo_name(text)


def _payload(rest: str, head: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the webhook's own JSON if it is valid and of the same push; any other is a text that looks like it."""
    start = rest.rfind("\nJSON:")
    start = start + 1 if start >= 0 else 0 if rest.startswith("JSON:") else -1
    if start < 0:
        return None
    try:
        found = parse(rest[start + 5 :].partition("\n")[0].encode())
    except MessageError:
        return None
    if not isinstance(found, dict) or (found.get("ref"), found.get("before"), found.get("after")) != (
        head["refname"],
        head["oldrev"],
        head["newrev"],
    ):
        return None
    return found


def _with_payload(message: RefUpdated, payload: dict[str, Any]) -> RefUpdated:
    listed = payload.get("commits")
    commits = [_commit(c) for c in listed[-MAX_COMMITS:]] if isinstance(listed, list) else []
    total = payload.get("total_commits_count")
    pusher = payload.get("pusher")
    who = (
        payload.get("user_username"),
        payload.get("user_name"),
        pusher.get("name") if isinstance(pusher, dict) else None,
    )
    return attrs.evolve(
        message,
        commits=tuple(c for c in reversed(commits) if c is not None),
        commit_count=max(
            len(listed) if isinstance(listed, list) else 0,
            min(total, MAX_COUNT) if isinstance(total, int) and not isinstance(total, bool) else 0,
        ),
        pusher=next((w[:NAME_TEXT] for w in who if isinstance(w, str) and w), ""),
        forced=payload.get("forced") is True,
    )


def _commit(entry: object) -> Commit | None:
    if not isinstance(entry, dict):
        return None
    author = entry.get("author")
    name, mail = (_text(author.get(k) if isinstance(author, dict) else "")[:NAME_TEXT] for k in ("name", "email"))
    try:
        return Commit(
            id=parse_object_id(entry.get("id")),
            author=f"{name} <{mail}>" if name and mail else name or mail,
            time=_text(entry.get("timestamp")),
            message=_text(entry.get("message")).rstrip("\n"),
        )
    except DeploykitError:
        return None


def _text(value: object) -> str:
    return value[:COMMIT_TEXT] if isinstance(value, str) else ""


# A commit as the hook wrote it (` SHA`, its message to the end), and as webhooks did (` commit SHA`, a tab before it).
_HOOK_COMMIT = re.compile(r" ?([0-9a-f]{40,64})[ \t]*+\n(?:Author: *+([^\n]*+)\n)?(?:Date: *+([^\n]*+)\n)?")
_WEB_COMMIT = re.compile(
    r"^ commit ([0-9a-f]{40,64})[ \t]*+\nAuthor: *+([^\n]*+)\nDate: *+([^\n]*+)\n\t?", re.MULTILINE
)


def _commits(rest: str) -> tuple[Commit, ...]:
    """Return the commits in the text, newest first; webhooks list the oldest first."""
    hook = _HOOK_COMMIT.match(rest)
    starts = [hook] if hook else list(_WEB_COMMIT.finditer(rest))
    ends = [s.start() for s in starts[1:]] + [len(rest)]
    made = [_text_commit(s, rest[s.end() : end]) for s, end in zip(starts, ends, strict=False)]
    return tuple(c for c in reversed(made) if c is not None)


def _text_commit(start: re.Match[str], message: str) -> Commit | None:
    try:
        commit = parse_object_id(start[1])
    except DeploykitError:
        return None
    author, time = ((group or "").strip()[:NAME_TEXT] for group in start.groups()[1:])
    return Commit(id=commit, author=author, time=time, message=message.strip("\n")[:COMMIT_TEXT])


# -- SVN ---------------------------------------------------------------------------------------------------------------

#: Where the directories begin and where they end; a revision that changed none has an empty list.
_SVN_DIRS = re.compile(r"^Dirs:[ \t]*\n", re.MULTILINE)
_SVN_BLANK = re.compile(r"^[ \t]*\n", re.MULTILINE)
_SVN_ESCAPE = re.compile(r"\{U\+([0-9A-F]{4,6})\}")
_SVN_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)? ?(Z|[+-][0-9]{2}):?([0-9]{2})?"
)


def revision_committed(
    head: Mapping[str, str], rest: str, headers: Mapping[str, str], envelope: dict[str, Any]
) -> Message:
    """Return the message of an SVN hook.

    The original's hook sends one message for a revision, whatever it touches. Ours sends one for each project, so a
    frame that has an id of ours is of the projects that it names, and no others.
    """
    about, tail = [*_SVN_DIRS.split(rest, 1), ""][:2]
    listed, log = [*_SVN_BLANK.split(tail, 1), ""][:2]
    dirs = [_unescaped(line) for line in listed.split("\n") if line.strip()]
    values: dict[str, list[str]] = {"Author": [], "Date": [], "Project": []}
    for line in about.split("\n", 2000)[:2000]:
        key, colon, value = line.strip().partition(":")
        if colon and key in values:
            values[key].append(_unescaped(value.strip()))
    named_here = tuple(dict.fromkeys(filter(None, values["Project"])))
    projects = named_here if ID_HEADER in headers else _projects(dirs, named_here)
    return RevisionCommitted(
        repo=named(parse_repo_name, head, "repo"),
        revision=named(_revision, head, "revname"),
        author="".join(values["Author"][:1])[:NAME_TEXT],
        committed=_svn_date("".join(values["Date"][:1])),
        log=_unescaped(log).strip("\n")[:COMMIT_TEXT],
        dirs=tuple(d for d in dirs[:MAX_DIRS] if len(d) <= DIR_TEXT),
        dir_count=len(dirs),
        projects=tuple(p for p in projects[:MAX_DIRS] if len(p) <= NAME_TEXT),
        **envelope,
    )


def _revision(text: object) -> int:
    if not isinstance(text, str) or not re.fullmatch(r"r?[0-9]{1,15}", text):
        raise MessageError("not a revision number")
    return int(text.removeprefix("r"))


def _projects(dirs: list[str], listed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the projects that the directories show, and the listed ones but for the original's wrong guesses.

    It took the last part of a path without `/trunk` for the project: the tag, or `tags` itself.
    """
    derived = svn_projects(dirs)
    guesses = {d.strip("/").rpartition("/")[2] for d in dirs} | {"tags", "branches", "trunk"} if derived else set()
    return tuple(dict.fromkeys((*derived, *(p for p in listed if p not in guesses))))


def _unescaped(text: str) -> str:
    """Return a text without svnlook's escapes for non-ASCII characters in an empty locale: `{U+00DF}`."""

    def char(hit: re.Match[str]) -> str:
        code = int(hit[1], 16)
        return chr(code) if 0xA0 <= code < 0xD800 or 0xDFFF < code <= 0x10FFFF else hit[0]

    return _SVN_ESCAPE.sub(char, text) if "{U+" in text else text


def _svn_date(text: str) -> datetime | None:
    """Parse `2012-04-19 10:00:00 +0100 (Thu, 19 Apr 2012)` (svnlook) or `2012-04-19T09:00:00.000000Z` (svn --xml)."""
    found = _SVN_DATE.match(text)
    if not found:
        return None
    offset = "+00:00" if found[3] == "Z" else f"{found[3]}:{found[4] or '00'}"
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
