"""From a signed request to messages: what lands on the bus of each change of a ref, field by field."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.messages import RefUpdated
from deploykit.names import RepoName
from deploykit.settings.webhook import Forge, WebhookSourceSettings
from deploykit.web.receiver.reading import read_delivery
from deploykit.web.receiver.signatures import WebhookSecret
from tests.support.forges import FORGES, NEW, OLD, ZERO, ForgedChange, forged, requests_for

NOW = datetime(2026, 11, 30, 9, 15, tzinfo=UTC)
CHANGES = [
    ForgedChange(ref, old, new)
    for ref in ("refs/heads/topic/a", "refs/tags/v1/rc.2")
    for old, new in ((ZERO, NEW), (OLD, NEW), (OLD, ZERO))
]
#: Forges that have commits in their payloads, where a ref was not deleted and the request is a push.
LISTS_COMMITS = set(FORGES) - {"bitbucket-dc", "generic"}


@pytest.mark.parametrize(
    ("forge", "change"),
    # Gogs sends nothing for a tag that was moved.
    [(f, c) for f in FORGES for c in CHANGES if (f, c.kind, c.old, c.new) != ("gogs", "tag", OLD, NEW)],
)
def test_one_change_lands_once_with_its_fields(forge: Forge, change: ForgedChange) -> None:
    secret = b"ada:a secret" if forge == "azure" else b"a secret"
    source = WebhookSourceSettings(
        forge=forge,
        secret_files=(Path("secret"),),
        repositories={"group/widget": RepoName("widget")},
        header="X-Signature" if forge == "generic" else "",
    )
    messages = [
        message
        for request in requests_for(forge, change, secret=secret)
        for message in read_delivery(
            "source", source, [WebhookSecret(value=secret)], request.lowered, request.body, now=NOW
        ).messages
    ]
    (message,) = messages
    assert isinstance(message, RefUpdated)
    short = (
        forge in ("gitea", "forgejo", "gogs") and change.new == ZERO and (forge == "gogs" or change.kind == "branch")
    )
    assert (message.repo, message.ref, message.old, message.new, message.pusher) == (
        "widget",
        change.ref,
        ZERO if short else change.old,
        change.new,
        "ada",
    )
    by_create = forge == "gogs" and change.kind == "tag"
    listed = forge in LISTS_COMMITS and change.new != ZERO and not by_create
    assert [commit.id for commit in message.commits] == [NEW] * listed
    assert message.commit_count == int(listed)
    assert message.kind == ("deleted" if change.new == ZERO else "created" if change.old == ZERO else "moved")


def test_a_signing_token_of_gitlab_is_accepted_within_its_time() -> None:
    token = b"whsec_" + base64.b64encode(bytes(range(32)))
    source = WebhookSourceSettings(
        forge="gitlab", secret_files=(Path("secret"),), repositories={"group/widget": RepoName("widget")}
    )
    request = forged("gitlab", secret=token, timestamp=int(NOW.timestamp()))
    read = read_delivery("source", source, [WebhookSecret(value=token)], request.lowered, request.body, now=NOW)
    assert [message.kind for message in read.messages if isinstance(message, RefUpdated)] == ["moved"]
