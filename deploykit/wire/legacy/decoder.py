"""The original's text bodies to messages.

Rules:

* Only the first lines of a body describe the event. The rest is other people's text (commit messages, logs, tool
  output) and can change nothing of it. A key given twice in the first lines is refused.
* Other people's text can at worst be left out. It cannot make an event unreadable: a push without an event is a deploy
  that does not happen.
* A password is in the message alone: not in an error, not in `repr`.
* What announces nothing, because its publisher had nothing to write into the field that says what it is, is a `Notice`:
  a build without a known status, a package without a name. A push that cannot be read is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from deploykit.errors import MessageError
from deploykit.messages import (
    AccessGrantRequested,
    BuildFinished,
    BuildStarted,
    Message,
    Notice,
    PackagePublished,
    new_id,
    one_line,
)
from deploykit.names import RefName, parse_object_id, parse_ref_name, parse_repo_name, parse_site_name
from deploykit.wire import field_types
from deploykit.wire.legacy.pushes import named, or_else, ref_updated, revision_committed
from deploykit.wire.strictjson import MAX_BODY

T = TypeVar("T")

HUMAN_SUBJECT: Final = "Talking to eventbot"
_DETAIL = 4000


def decode_legacy(headers: Mapping[str, str], body: bytes, destination: str, received: datetime) -> Message | None:
    """Return the message of a text body of the original's.

    Args:
        headers: `subject` marks human lines and builds; `message-id`, `timestamp`, `correlation-id` fill the envelope.
        body: the text.
        destination: part of the message's `source`.
        received: the message's time, where the broker gave none.

    Returns:
        The message, or None for a keepalive.

    Raises:
        MessageError: no publisher of the original's writes such a body.
    """
    if len(body) > MAX_BODY:
        raise MessageError(f"body of {len(body)} bytes is over the limit of {MAX_BODY}")
    text = body.decode("utf-8", "replace").replace("\r\n", "\n")
    if not text.strip():
        return None
    envelope = _envelope(headers, body, destination, received)
    subject = headers.get("subject", "").strip()
    if subject == HUMAN_SUBJECT:
        return Notice(text=text.strip(), **envelope)
    head, rest = _head(text.lstrip("\ufeff \t\n"))  # the original's readers look at every line
    for keys, read in _SHAPES:
        if keys <= head.keys():
            return read(head, rest, headers, envelope)
    if ".events." in destination:
        return Notice(text=text.strip(), **envelope)
    raise MessageError(
        "not a message of the original's that we know", "native messages have another content-type: see wire-format"
    )


def _envelope(headers: Mapping[str, str], body: bytes, destination: str, received: datetime) -> dict[str, Any]:
    """Return the envelope of a legacy message, which has none; the same delivery gets the same id again."""
    broker_id, stamp = headers.get("message-id", ""), headers.get("timestamp", "")
    name = "\0".join((broker_id, destination, headers.get("subject", ""))).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(name + bytes(1) + body)
    when = received
    if re.fullmatch(r"[0-9]{12,14}", stamp):
        when = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(stamp))
    return {
        "id": f"legacy-{digest.hexdigest()[:40]}" if broker_id else new_id(),
        "source": _source(destination),
        "time": when,
        "correlation_id": or_else(field_types.identifier, headers.get("correlation-id"), ""),
    }


def _source(destination: str) -> str:
    """Return a source named after the destination, as a URI reference of bounded length."""
    path = quote(destination, safe="/", errors="replace") if destination.startswith("/") else ""
    return re.sub(r"%[0-9A-F]?\Z", "", f"legacy{path}"[:200])  # never cut inside an escape


_KEYS: Final = frozenset(
    {"repo", "oldrev", "newrev", "refname", "revname", "package", "Site", "User", "Password", "Repo", "URL", "Status"}
)


def _head(text: str) -> tuple[dict[str, str], str]:
    """Return the first lines that are `key: value` with a known key, at most eight, and the rest of the text."""
    head: dict[str, str] = {}
    while len(head) < 8:
        line, _, rest = text.partition("\n")
        key, colon, value = line.partition(":")
        if not colon or key not in _KEYS:
            break
        if key in head:
            raise MessageError(f"{key} is given twice")
        head[key] = value.strip()
        text = rest
        if key == "package":
            break
    return head, text


# -- Jenkins, packages, access -----------------------------------------------------------------------------------------

_JOB_SUBJECT = re.compile(r"(?:Begin|Complete|Fail) job ([0-9]{0,15}) - \[")


def _job(subject: str) -> tuple[str, str, str, str]:
    """Return number, job, branch and commit from `Fail job 7 - [JOB] BRANCH COMMIT`; empty where they are missing."""
    start = _JOB_SUBJECT.match(subject)
    if not start:
        return "", "", "", ""
    # A branch may hold a bracket, but no blank.
    job, _, built = f"{subject[start.end() :]} ".rpartition("] ")
    branch, _, commit = built.partition(" ")
    return start[1], job, branch, commit.strip()


#: What git calls the one it cloned from. The original's helper took it for the repository's name where a job does not
#: name its remotes after repositories.
_REMOTE: Final = "origin"


def _build(head: Mapping[str, str], _rest: str, headers: Mapping[str, str], envelope: dict[str, Any]) -> Message:
    status, subject = head["Status"], headers.get("subject", "").strip()
    if status not in ("Start job", "Success", "Cake"):
        # The helper wrote no status without one of its options. Nothing of a build is known then but where it is.
        known = (subject, head.get("URL", ""), status)
        return Notice(text=one_line(" ".join(filter(None, known))) or "a build", **envelope)
    number, job, branch, commit = _job(subject)
    number = number or "".join(re.findall(r"/([0-9]{1,12})/?\Z", head.get("URL", "")))
    repo = None if head["Repo"] == _REMOTE else or_else(parse_repo_name, head["Repo"], None)
    fields = {
        "job": one_line(job or head["Repo"]) or "unnamed",
        "number": int(number or 0),
        "url": one_line(head.get("URL", ""), 2000),
        "repo": repo,
        "ref": _branch(branch.removeprefix(f"{head['Repo']}/")) if branch else None,
        "commit": or_else(parse_object_id, commit, None),
        **envelope,
    }
    if status == "Start job":
        return BuildStarted(**fields)
    return BuildFinished(outcome="success" if status == "Success" else "failure", **fields)


def _branch(text: str) -> RefName | None:
    """Return the ref of what the git plugin calls a branch: `main`, `tags/v1`, a full name; None for `detached`."""
    if text in ("detached", "HEAD"):
        return None
    start = "" if text.startswith("refs/") else "refs/" if text.startswith("tags/") else "refs/heads/"
    return or_else(parse_ref_name, start + text, None)


_DEB = re.compile(r"([^_]+)_([^_]+)_([^_]+)\.u?deb\Z")


def _package(head: Mapping[str, str], rest: str, _headers: Mapping[str, str], envelope: dict[str, Any]) -> Message:
    file = one_line(head["package"].rpartition("/")[2])
    parts = _DEB.match(file)
    if not file:
        output = one_line(rest.strip().partition("\n")[0])
        return Notice(text=f"a package without a name{f': {output}' if output else ''}", **envelope)
    return PackagePublished(
        name=parts[1] if parts else file.removesuffix(".deb"),
        version=unquote(parts[2]) if parts else "",
        architecture=parts[3] if parts else "",
        file=file,
        detail=rest.strip()[:_DETAIL],
        **envelope,
    )


def _access(head: Mapping[str, str], _rest: str, _headers: Mapping[str, str], envelope: dict[str, Any]) -> Message:
    if not head["Site"]:  # the original's form sends that where a session has ended
        return Notice(text="an access to no site was asked for", **envelope)
    password = head["Password"]
    if not password or not password.isprintable() or "\ufffd" in password:
        raise MessageError("Password: expected printable text")
    return AccessGrantRequested(
        site=named(parse_site_name, head, "Site"),
        user=named(field_types.user_name, head, "User"),
        password=password,
        **envelope,
    )


_SHAPES: Final[tuple[tuple[frozenset[str], Callable[..., Message]], ...]] = (
    (frozenset({"repo", "refname"}), ref_updated),
    (frozenset({"repo", "revname"}), revision_committed),
    (frozenset({"Repo", "Status"}), _build),
    (frozenset({"package"}), _package),
    (frozenset({"Site", "User", "Password"}), _access),
)
