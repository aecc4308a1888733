"""Requests as forges send them, signed: what receivers of webhooks are tested and shown with.

    headers, body = forged("github", "push", secret=b"secret")
    for request in requests_for("gogs", ForgedChange("refs/tags/v1", ZERO, NEW)): ...

Nothing here is for production. Payloads are of made-up projects (see `forgepayloads`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlencode

from deploykit.testing.forgedevents import ZERO, ForgedChange, ForgedCommit, ForgedEvent
from deploykit.testing.forgepayloads import PAYLOADS

OLD: Final = "1f" * 20
NEW: Final = "2e" * 20
DELIVERY: Final = "5b1f7c1e-8d5e-4a55-9d4e-0c6a5a3f8a10"
#: Of GitLab's signing token: base64 after `whsec_`.
SIGNING_PREFIX: Final = "whsec_"
FORGES: Final = tuple(PAYLOADS)
_REPOSITORY: Final = "group/widget"

_EVENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "gitlab": {"push": "Push Hook", "tag": "Tag Push Hook", "update": "System Hook", "merge": "Merge Request Hook"},
    "bitbucket": {"push": "repo:push", "merge": "pullrequest:fulfilled"},
    "bitbucket-dc": {"push": "repo:refs_changed", "merge": "pr:merged", "ping": "diagnostics:ping"},
}
#: What each of GitHub's followers calls itself in headers; all but GitHub send the names of those before, too.
_FAMILY: Final[Mapping[str, tuple[str, ...]]] = {
    "github": ("GitHub",),
    "gogs": ("Gogs", "GitHub"),
    "gitea": ("Gitea", "Gogs", "GitHub"),
    "forgejo": ("Forgejo", "Gitea", "Gogs", "GitHub"),
}


class ForgedRequest(NamedTuple):
    """Headers, by the names that the forge writes, and the body."""

    headers: dict[str, str]
    body: bytes

    @property
    def lowered(self) -> dict[str, str]:
        """The headers by names in lower case, as ASGI has them."""
        return {name.lower(): value for name, value in self.headers.items()}


def forged(
    forge: str,
    event: str = "push",
    *,
    repository: str = _REPOSITORY,
    changes: Sequence[ForgedChange] = (ForgedChange("refs/heads/main", OLD, NEW),),
    commits: Sequence[ForgedCommit] | None = None,
    total: int = -1,
    pusher: str = "ada",
    forced: bool = False,
    checkout: str = "",
    delivery: str = DELIVERY,
    title: str = "Serve the new page",
    secret: bytes = b"",
    header: str = "X-Signature",
    timestamp: int = 0,
    form: bool = False,
) -> ForgedRequest:
    """Return one request of a forge.

    Args:
        forge: as in the settings.
        event: `push`; of some forges also `create`, `delete`, `ping`, `merge`, `update` (GitLab's `repository_update`).
        repository: the forge's name of it.
        changes: of refs; forges that send a request for each take the first.
        commits: oldest first; by default one, whose id is that of the first change.
        total: how many commits there were; by default those listed.
        checkout: GitLab: the commit of an annotated tag.
        secret: signs, or is sent; without one the request is not signed. Azure: `USER:PASSWORD`.
        header: of `generic`: carries the HMAC; of `azure`, with a secret without colon, the secret.
        timestamp: GitLab with a signing token: when, in seconds since 1970.
        form: as a form's field `payload` instead of JSON.
    """
    made = [ForgedCommit(changes[0].new)] if commits is None else commits
    what = ForgedEvent(
        repository=repository,
        changes=changes,
        commits=made,
        total=len(made) if total < 0 else total,
        pusher=pusher,
        forced=forced,
        checkout=checkout,
        delivery=delivery,
        title=title,
    )
    text = json.dumps(PAYLOADS[forge][event](what), ensure_ascii=False, indent=2 if forge == "gogs" else None).encode()
    body = urlencode({"payload": text}).encode() if form else text
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    named = _EVENTS.get(forge, {}).get("tag" if event == "push" and changes[0].kind == "tag" else event)
    headers = {
        "Content-Type": kind,
        "User-Agent": f"{forge}-hook/1",
        **_about(forge, named or _EVENTS.get(forge, {}).get(event) or _github_event(event), delivery),
        # Gitea and Gogs sign the JSON text inside a form, GitHub the form.
        **signed(forge, text if forge in ("gitea", "forgejo", "gogs") else body, secret, delivery, header, timestamp),
    }
    return ForgedRequest(headers, body)


def requests_for(forge: str, change: ForgedChange, *, secret: bytes = b"") -> tuple[ForgedRequest, ...]:
    """Return all requests that a forge sends for one change of a ref: some send two, some not a push."""
    new, gone, tag = change.old == ZERO, change.new == ZERO, change.kind == "tag"
    events = ["push"]
    if forge == "github":
        events += ["create"] * new + ["delete"] * gone
    elif forge in ("gitea", "forgejo"):
        events = ["push"] * (tag or not gone) + ["create"] * new + ["delete"] * gone
    elif forge == "gogs":
        events = ["push"] * (not tag and not gone) + ["create"] * new + ["delete"] * gone
    return tuple(
        forged(forge, event, changes=(change,), secret=secret, delivery=f"{DELIVERY[:-1]}{number}")
        for number, event in enumerate(events)
    )


def _github_event(event: str) -> str:
    return "pull_request" if event == "merge" else event


def _about(forge: str, event: str, delivery: str) -> dict[str, str]:
    """Return the headers that name event and delivery."""
    if forge in _FAMILY:
        names = _FAMILY[forge]
        return {f"X-{n}-Event": event for n in names} | {f"X-{n}-Delivery": delivery for n in names}
    match forge:
        case "gitlab":
            return {
                "X-Gitlab-Event": event,
                "X-Gitlab-Instance": "https://elsewhere.invalid",
                "Idempotency-Key": delivery,
            }
        case "bitbucket":
            return {"X-Event-Key": event, "X-Request-UUID": delivery, "X-Hook-UUID": "6f0c", "X-Attempt-Number": "1"}
        case "bitbucket-dc":
            return {"X-Event-Key": event, "X-Request-Id": delivery}
    return {}


def signed(
    forge: str, body: bytes, secret: bytes, delivery: str = DELIVERY, header: str = "X-Signature", timestamp: int = 0
) -> dict[str, str]:
    """Return the headers by which a forge proves that it knows the secret; see `forged`."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest() if secret else ""
    if forge in ("gitea", "forgejo"):  # without a secret the headers are there, and the digest is empty
        own = {"X-Gitea-Signature": digest, "X-Gogs-Signature": digest, "X-Hub-Signature-256": f"sha256={digest}"}
        return own | ({"X-Forgejo-Signature": digest} if forge == "forgejo" else {})
    if not secret:
        return {}
    if forge == "gitlab":
        signing = secret.startswith(SIGNING_PREFIX.encode())
        return _standard(body, secret, delivery, timestamp) if signing else {"X-Gitlab-Token": secret.decode()}
    if forge == "azure":
        basic = f"Basic {base64.b64encode(secret).decode()}"
        return {"Authorization": basic} if b":" in secret else {header: secret.decode()}
    name = {"github": "X-Hub-Signature-256", "gogs": "X-Gogs-Signature", "generic": header}.get(
        forge, "X-Hub-Signature"
    )
    return {name: digest if forge == "gogs" else f"sha256={digest}"}


def _standard(body: bytes, secret: bytes, delivery: str, timestamp: int) -> dict[str, str]:
    """Return the headers of Standard Webhooks: an HMAC of id, time and body."""
    key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX.encode()))
    content = b".".join((delivery.encode(), str(timestamp).encode(), body))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}


__all__ = [
    "DELIVERY",
    "FORGES",
    "NEW",
    "OLD",
    "ZERO",
    "ForgedChange",
    "ForgedCommit",
    "ForgedRequest",
    "forged",
    "requests_for",
    "signed",
]
