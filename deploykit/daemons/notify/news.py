"""Which messages are news, and of which kind. Pure.

Rules:

* What went wrong is `failure`, and also of its own kind: a failed build goes where builds go.
* What must be signed and is not believed is no news. What needs no signature is marked as unsigned.
* Locks and approvals are statements that anybody may send again: old ones are no news.
* What nodes ask and describe, and the steps of a deploy, are for pages and no news. So is a package source that was
  read; one that could not be is news.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

import attrs

from deploykit.daemons.legacylines import line_of
from deploykit.fleet.tracetrust import SignatureVerdict
from deploykit.messages import (
    AccessReported,
    Build,
    BuildFinished,
    BuildRequested,
    DeployReported,
    Message,
    MirrorUpdated,
    Notice,
    PackagePublished,
    PackageReported,
    RefUpdated,
    RevisionCommitted,
    RolloutAbort,
    RolloutApproved,
    RolloutProposed,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
    one_line,
)
from deploykit.names import ZERO_ID, RefName, short_ref
from deploykit.settings.notify import TEMPLATE_FIELDS, NotifyEvent
from deploykit.settings.site import is_web_address

#: A statement that is older when it arrives was sent again, and is not new.
STATEMENT_AGE: Final = timedelta(hours=1)
_KINDS: Final[Mapping[NotifyEvent, tuple[type[Message], ...]]] = {
    "notice": (Notice, PackagePublished),
    "approval": (RolloutProposed,),
    "rollout": (RolloutReported, RolloutAbort, DeployReported),
    "lock": (SiteLocked, SiteUnlocked),
    "access": (AccessReported,),
    "push": (RefUpdated, RevisionCommitted),
    "build": (Build,),
}
_BAD_ENDS: Final = ("failed", "aborted", "rolled-back")
#: Characters of a field.
_FIELD: Final = 200
_LENGTHS: Final = {"line": 300, "link": 1000}


@attrs.frozen(kw_only=True, slots=True)
class NewsItem:
    """Something that may be sent.

    Args:
        message: what was heard.
        kinds: of which kinds it is, the one that matters most first.
        fields: the values of `TEMPLATE_FIELDS`, each one bounded line.
        received: when it was heard, aware.
        digest: of the body: the same for each copy.
        machine_only: only programs want it: people get the line of the whole rollout.
    """

    message: Message
    kinds: tuple[NotifyEvent, ...]
    fields: Mapping[str, str]
    received: datetime
    digest: str
    machine_only: bool = False

    @property
    def site(self) -> str:
        """The site it is about; empty for none."""
        return self.fields["site"]

    @property
    def verified(self) -> bool:
        """Whether somebody who may say so has signed it."""
        return self.fields["standing"] == "verified"

    @property
    def pair(self) -> tuple[str, str]:
        """The same for an event and for the notice that a hook, or a daemon in a mixed fleet, sends with it."""
        line = line_of(self.message)
        if line is not None:
            return line.correlation_id, one_line(line.text, _LENGTHS["line"])
        return self.message.correlation_id, self.fields["line"]


def news_of(
    message: Message, verdict: SignatureVerdict, *, body: bytes, received: datetime, console: str = ""
) -> NewsItem | None:
    """Return what a message is worth sending; None where it is no news.

    Args:
        message: decoded from `body`.
        verdict: what its signature is worth.
        received: aware.
        console: where the console is, for links; empty for none.
    """
    kinds = kinds_of(message)
    if not kinds or not verdict.counts:
        return None
    statement = isinstance(message, SiteLocked | SiteUnlocked | RolloutApproved)
    if statement and received - message.time > STATEMENT_AGE:
        return None
    return NewsItem(
        message=message,
        kinds=kinds,
        fields=_fields_of(message, verdict, kinds[0], console),
        received=received,
        digest=hashlib.sha256(body).hexdigest(),
        machine_only=isinstance(message, DeployReported) and message.outcome == "success",
    )


def kinds_of(message: Message) -> tuple[NotifyEvent, ...]:
    """Return of which kinds a message is; empty for one that is no news."""
    if isinstance(message, RolloutApproved):
        return ("approval", "rollout")
    own = next((kind for kind, classes in _KINDS.items() if isinstance(message, classes)), None)
    if _went_wrong(message):
        return ("failure", own) if own is not None else ("failure",)
    return (own,) if own is not None else ()


def _went_wrong(message: Message) -> bool:
    match message:
        case BuildFinished():
            return message.outcome != "success"
        case BuildRequested():
            return message.outcome in ("refused", "failed")
        case DeployReported():
            return message.outcome != "success"
        case RolloutReported():
            return message.state in _BAD_ENDS or (message.state == "paused" and bool(message.failed))
        case AccessReported() | MirrorUpdated() | PackageReported():
            return message.outcome in ("refused", "failed")
    return False


def _fields_of(message: Message, verdict: SignatureVerdict, event: NotifyEvent, console: str) -> Mapping[str, str]:
    ref = getattr(message, "ref", None)
    commit = _first(message, "commit", "new")
    found = {
        "line": message.summary,
        "event": event,
        "standing": verdict.standing,
        "signer": verdict.signer,
        "source": message.source,
        "time": f"{message.time:%Y-%m-%d %H:%M} UTC",
        "link": _link(message, verdict, console),
        "ref": short_ref(RefName(ref)) if isinstance(ref, str) else "",
        "commit": "" if commit == ZERO_ID else commit[:12],
        "state": _first(message, "outcome", "state", "kind"),
        "who": _first(message, "requested_by", "holder", "pusher", "author", "user"),
        "reason": _first(message, "reason", "detail", "text", "log"),
    }
    found |= {name: _first(message, name) for name in ("site", "repo", "node", "rollout")}
    return {name: one_line(found[name], _LENGTHS.get(name, _FIELD)) for name in TEMPLATE_FIELDS}


def _first(message: Message, *names: str) -> str:
    """Return the first of some fields that holds a text."""
    return next((value for name in names if isinstance(value := getattr(message, name, None), str) and value), "")


def _link(message: Message, verdict: SignatureVerdict, console: str) -> str:
    """Return the page of the console about a message; else the address that a believed proposal names itself."""
    if not console:
        own = message.url if isinstance(message, RolloutProposed) and verdict.standing == "verified" else ""
        return own if own and is_web_address(own) and own.isprintable() and " " not in own else ""
    base = console.rstrip("/")
    match message:
        case RolloutProposed():
            return f"{base}/deploys/{quote(message.rollout, safe='')}/approve"
        case RolloutReported() | RolloutApproved() | RolloutAbort():
            return f"{base}/deploys/{quote(message.rollout, safe='')}"
    site = _first(message, "site")
    return f"{base}/sites/{quote(site, safe='')}" if site else ""


__all__ = ["STATEMENT_AGE", "NewsItem", "kinds_of", "news_of"]
