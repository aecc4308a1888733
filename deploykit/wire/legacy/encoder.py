"""Messages to the original's text bodies, for its daemons that still run.

Rules:

* The first lines are made of parsed names only. Other people's text follows, and no line of it can be read as one of
  the keys the original's readers look for, wherever they look.
* A reader of the original's takes branch and commit from the *subject*, the rest from `key: value` lines; its mirror
  updater wants the `JSON:` line of a webhook, so every push has one.
"""

from __future__ import annotations

import json
import re
from typing import Final

from deploykit.errors import MessageError
from deploykit.messages import (
    BY_TYPE,
    AccessGrantRequested,
    AccessReported,
    Build,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    Commit,
    DeployReported,
    Message,
    MirrorUpdated,
    NodeDescribed,
    Notice,
    PackagePublished,
    PackageReported,
    RefUpdated,
    RevisionCommitted,
    one_line,
)
from deploykit.names import RefName, is_zero, short_ref
from deploykit.wire import encoder, envelope
from deploykit.wire.frame import ID_HEADER, Frame, header_text, quoted, sendable
from deploykit.wire.legacy.decoder import HUMAN_SUBJECT
from deploykit.wire.strictjson import MAX_BODY

_PLAIN_TEXT: Final = "text/plain; charset=UTF-8"
_READ_KEYS: Final = frozenset(
    {"repo", "oldrev", "newrev", "refname", "revname", "project", "json", "dirs", "author", "date"}
    | {"site", "user", "password", "package", "status", "url"}
)


def encode_legacy(message: Message, *, label: str = "") -> Frame:
    """Return a message as the original's publisher would write it.

    A revision that touches several SVN projects names them all, but a reader of the original's acts on one only:
    `legacy_frames` writes one frame for each.

    Args:
        message: what to write.
        label: of an access: what the original's daemon calls the site in its own settings ("Example site"), where
            that is not the site's name here.

    Raises:
        MessageError: the original has no such message, or this one lacks what it needs (access: the clear password).
    """
    _checked(message)
    match message:
        case RefUpdated():
            subject, body = f"[{message.repo}] {message.ref} {message.new}", _push(message)
        case RevisionCommitted():
            subject, body = f"[{message.repo}] {message.revision} ", _revision(message, message.projects)
        case BuildStarted() | BuildFinished():
            subject, body = _build(message)
        case PackagePublished():
            file = _file(message.file) or _file(f"{message.name}_{message.version}_{message.architecture}.deb")
            subject = header_text(one_line(f"Package update [{file}]"))
            body = f"package: {file}\n{_quiet(message.detail)}\n"
        case AccessGrantRequested():
            subject, body = _access(message, label)
        case Notice():
            subject, body = HUMAN_SUBJECT, one_line(message.text, 4000) or "-"  # nothing at all is a keepalive
        case (
            MirrorUpdated() | DeployReported() | NodeDescribed() | BuildRequested() | AccessReported()
            | PackageReported()
        ):  # fmt: skip
            subject, body = HUMAN_SUBJECT, message.summary
        case _:
            raise MessageError(f"the original has no message like {type(message).__name__}", "send the native form")
    return _frame(message, subject, body)


def legacy_frames(message: Message) -> tuple[Frame, ...]:
    """Return the frames that the original's readers need to act on all of a message: one per SVN project.

    Each has an id of its own, the same each time, and is read back as of its project alone.
    """
    if not isinstance(message, RevisionCommitted) or len(message.projects) < 2:
        return (encode_legacy(message),)
    _checked(message)
    subject = f"[{message.repo}] {message.revision} "
    return tuple(
        _frame(message, subject, _revision(message, (project,)), number)
        for number, project in enumerate(message.projects, 1)
    )


def _checked(message: Message) -> None:
    """Refuse a message that breaks the rules of the native form: names in it become lines and header values."""
    if type(message) not in BY_TYPE.values():
        raise MessageError(f"the original has no message like {type(message).__name__}", "send the native form")
    found = envelope.problems_of(message) + encoder.problems_of(message)
    if isinstance(message, AccessGrantRequested):
        found = [line for line in found if not line.startswith("password:")]
    if found:
        raise MessageError(
            f"{type(message).__name__} cannot be sent: {found[0]}", envelope.and_more(found), problems=tuple(found)
        )


def _frame(message: Message, subject: str, body: str, number: int = 0) -> Frame:
    raw = body.encode("utf-8", "replace")
    if len(raw) > MAX_BODY:
        raise MessageError(f"message of {len(raw)} bytes is over the limit of {MAX_BODY}", "cut its texts or lists")
    own_id = f"{message.id}/{number}" if number else message.id
    headers = {"subject": subject, "content-type": _PLAIN_TEXT, ID_HEADER: quoted(own_id)}
    if message.correlation_id:
        headers["correlation-id"] = quoted(message.correlation_id)
    return sendable(Frame(headers, raw))


def _quiet(text: str) -> str:
    """Return other people's text without the colons that would make a key of a line's first word."""
    return "\n".join(_quiet_line(line) for line in text.splitlines())


def _quiet_line(line: str) -> str:
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", " ", line)
    key, colon, rest = shown.partition(":")
    return f"{key} -{rest}" if colon and key.strip().lower() in _READ_KEYS else shown


def _file(name: str) -> str:
    return one_line(name).rpartition("/")[2].strip()


# -- git and SVN -------------------------------------------------------------------------------------------------------

_AUTHOR = re.compile(r"(.*?) ?<([^<>]*)>\Z")


def _push(message: RefUpdated) -> str:
    lines = [
        f"repo: {message.repo}",
        f"oldrev: {message.old}",
        f"newrev: {message.new}",
        f"refname: {message.ref}",
    ]
    for commit in reversed(message.commits):
        title = one_line(commit.message.partition("\n")[0])
        lines += [
            f" commit {commit.id}",
            f"Author: {one_line(commit.author)}",
            f"Date: {one_line(commit.time)}",
            f"\t{_quiet_line(title)}",
            "",
        ]
    return "\n".join(lines) + f"\nJSON: {_payload(message)}\n"


def _payload(message: RefUpdated) -> str:
    """Return the push as the webhooks of GitLab and GitHub describe it, as far as both agree, in ASCII."""
    deleted = is_zero(message.new)
    return json.dumps(
        {
            "object_kind": "tag_push" if message.ref.startswith("refs/tags/") else "push",
            "ref": message.ref,
            "before": message.old,
            "after": message.new,
            "checkout_sha": None if deleted else message.new,
            "created": message.kind == "created",
            "deleted": deleted,
            "forced": message.kind == "forced",
            "user_name": message.pusher,
            "pusher": {"name": message.pusher},
            "repository": {"name": message.repo},
            "commits": [_commit(c) for c in reversed(message.commits)],
            "total_commits_count": message.commit_count,
        }
    )


def _commit(commit: Commit) -> dict[str, object]:
    found = _AUTHOR.match(commit.author)
    name, mail = (found[1], found[2]) if found else (commit.author, "")
    return {
        "id": commit.id,
        "message": commit.message,
        "timestamp": commit.time,
        "author": {"name": name, "email": mail},
    }


def _revision(message: RevisionCommitted, projects: tuple[str, ...]) -> str:
    date = f"{message.committed:%Y-%m-%d %H:%M:%S +0000 (%a, %d %b %Y)}" if message.committed else ""
    named = "".join(f"Project: {one_line(p)}\n" for p in projects) or "Project: \n"
    dirs = "\n".join(_quiet_line(d.replace("\n", " ")) for d in message.dirs)
    return (
        f"repo: {message.repo}\nrevname: {message.revision}\n Author: {one_line(message.author)}\n"
        f"Date: {date}\n{named}\nDirs:\n{dirs}\n\n{_quiet(message.log)}\n\n"
    )


# -- Jenkins and access ------------------------------------------------------------------------------------------------


def _build(message: Build) -> tuple[str, str]:
    verb, status = "Begin", "Start job"
    if isinstance(message, BuildFinished):
        verb, status = ("Complete", "Success") if message.outcome == "success" else ("Fail", "Cake")
    # The original's helper wrote what stands before the first / of the branch: git's own name of a remote, where the
    # job does not name its remotes after repositories.
    repo = message.repo or ("origin" if message.ref else "")
    branch = f"{repo}/{_branch(message.ref)}" if message.ref else ""
    job = header_text(one_line(message.job))
    subject = f"{verb} job {message.number or ''} - [{job}] {branch} {message.commit or ''}"
    return subject, f"Repo: {repo}\nURL: {one_line(message.url, 2000)}\nStatus: {status}\n"


def _branch(ref: RefName) -> str:
    """Return the git plugin's name of a ref, `main` or `tags/v1`; in full where that would name another ref."""
    name = short_ref(ref)
    if ref.startswith("refs/tags/"):
        return f"tags/{name}"
    return str(ref) if name.startswith(("refs/", "tags/")) or name in ("detached", "HEAD") else name


def _access(message: AccessGrantRequested, label: str) -> tuple[str, str]:
    if label and (not label.isprintable() or label != label.strip() or header_text(label) != label):
        raise MessageError("label: expected one line as in the settings of the original's access daemon")
    password: object = message.password
    if not isinstance(password, str) or not password or not password.isprintable():
        raise MessageError(
            "password: the original's access daemon needs it in clear", "send the native form, with a hash, instead"
        )
    site = label or message.site
    subject = f"Allow access to {site} for {message.user}"
    return subject, f"Site: {site}\nUser: {message.user}\nPassword: {message.password}\n"
