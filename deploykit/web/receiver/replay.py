"""A payload in a file, tried as if it had come: what would be published, or why not.

Nothing is published or remembered. Pure but for the files of secrets, which are read only to sign or to check.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.errors import UsageError, WebhookRefused
from deploykit.hooking.enqueue import outgoing_of
from deploykit.messages import new_id
from deploykit.outbox import Outgoing
from deploykit.settings.node import Settings
from deploykit.settings.webhook import Forge, WebhookSourceSettings
from deploykit.settings.webhooksecrets import SIGNING_TOKEN, signing_key_of
from deploykit.web.receiver.payload import too_long
from deploykit.web.receiver.reading import ReadDelivery, read_delivery
from deploykit.web.receiver.signatures import HEX_HEADERS, WebhookSecret
from deploykit.web.receiver.sourcesecrets import read_secrets

Proof = Literal["none", "sign", "check"]

#: The header that names the event, and the event of a push.
_EVENT: Final[Mapping[Forge, tuple[str, str]]] = {
    "github": ("x-github-event", "push"),
    "gitlab": ("x-gitlab-event", "Push Hook"),
    "gitea": ("x-gitea-event", "push"),
    "forgejo": ("x-forgejo-event", "push"),
    "gogs": ("x-gogs-event", "push"),
    "bitbucket": ("x-event-key", "repo:push"),
    "bitbucket-dc": ("x-event-key", "repo:refs_changed"),
}


@attrs.frozen(kw_only=True, slots=True)
class ReplayedWebhook:
    """What would become of a payload.

    Args:
        status: what the sender would be answered.
        reason: why nothing is published; empty where something is.
        read: what was understood; None where it was refused.
        outgoing: what would be put into the outbox.
    """

    status: int
    reason: str
    read: ReadDelivery | None = None
    outgoing: tuple[Outgoing, ...] = ()


def replay(
    settings: Settings,
    name: str,
    raw: bytes,
    headers: Mapping[str, str],
    *,
    event: str = "",
    proof: Proof = "none",
    now: datetime,
) -> ReplayedWebhook:
    """Return what would become of a payload.

    Args:
        settings: of this machine.
        name: of the source.
        raw: the body.
        headers: what the sender would send; content type and event are added where they are not among them.
        event: the forge's name of the event; empty: that of a push.
        proof: `sign` with the source's own secret and verify that, `check` the headers as they are, or neither.
        now: the wall clock.

    Raises:
        UsageError: there is no such source.
        SettingsError: a file with a secret cannot be used.
    """
    source = settings.webhook.sources.get(name)
    if source is None:
        known = ", ".join(settings.webhook.sources) or "none"
        raise UsageError(f"no source {name!a} in the settings", f"there are: {known}")
    found = {key.lower(): _on_the_wire(value) for key, value in headers.items()}
    form = raw.startswith(b"payload=")
    found.setdefault("content-type", "application/x-www-form-urlencoded" if form else "application/json")
    if source.forge in _EVENT:
        header, push = _EVENT[source.forge]
        if event or header not in found:
            found[header] = event or push
    elif event:
        raise UsageError(f"{source.forge} has no header for the event: the payload names it", "leave out --event")
    secrets = read_secrets(name, source) if proof != "none" else None
    if proof == "sign" and secrets is not None:
        found |= signed_headers(source, secrets[0], raw, now)
    try:
        if len(raw) > settings.webhook.max_body:
            raise too_long(settings.webhook.max_body)
        read = read_delivery(name, source, secrets, found, raw, now=now)
    except WebhookRefused as error:
        return ReplayedWebhook(status=error.status, reason=str(error))
    messages = read.wanted_messages(notices=settings.webhook.notices)
    outgoing = outgoing_of(
        messages,
        settings.topics,
        notices=settings.webhook.notices,
        legacy=settings.webhook_legacy,
        legacy_deletes=settings.legacy_deletes,
    )
    status = 200 if read.outcome == "ignored" else 202
    return ReplayedWebhook(status=status, reason=read.reason, read=read, outgoing=tuple(outgoing))


def signed_headers(source: WebhookSourceSettings, secret: WebhookSecret, raw: bytes, now: datetime) -> dict[str, str]:
    """Return the headers with which the sender would prove that it knows the secret. Never show them."""
    if source.forge == "gitlab":
        if not secret.value.startswith(SIGNING_TOKEN):
            return {"x-gitlab-token": secret.value.decode("latin-1")}
        own_id, at = new_id(), str(int(now.timestamp()))
        content = b".".join((own_id.encode(), at.encode(), raw))
        digest = hmac.new(signing_key_of(secret.value.decode()), content, hashlib.sha256).digest()
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": own_id, "webhook-timestamp": at, "webhook-signature": signature}
    if source.forge == "azure":
        if source.header:
            return {source.header.lower(): secret.value.decode("latin-1")}
        return {"authorization": f"Basic {base64.b64encode(secret.value).decode()}"}
    header, prefix = HEX_HEADERS.get(source.forge, ((source.header.lower(), "sha256="),))[0]
    return {header: prefix + hmac.new(secret.value, raw, hashlib.sha256).hexdigest()}


def _on_the_wire(value: str) -> str:
    """Return a header's value as a server hands it over: one character for each byte."""
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


__all__ = ["Proof", "ReplayedWebhook", "replay", "signed_headers"]
