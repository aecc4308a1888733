"""Whatever stands in a payload: a message that can be sent, or a refusal that names the field. Never another error."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from deploykit.errors import WebhookRefused
from deploykit.messages import RefUpdated
from deploykit.messages.base import one_line
from deploykit.names import RepoName
from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges import ForgeDelivery, parse
from deploykit.web.receiver.forges.values import MAX_LISTED
from deploykit.wire import decode
from deploykit.wire.codec import encode_fitted
from tests.support.forges import FORGES, NEW, OLD, PAYLOADS, ZERO, ForgedChange, ForgedCommit, forged
from tests.support.hostilejson import VALUES, each_changed

DATA = Path(__file__).parents[3] / "data" / "webhooks"
CASES: Mapping[str, Mapping[str, Any]] = json.loads((DATA / "expected.json").read_text())
#: Where a forge has what decides; without any of these nothing is published.
DECIDING = {
    "github": {"ref", "before", "after", "repository", "repository.full_name"},
    "gitlab": {"ref", "before", "after", "project", "project.path_with_namespace"},
    "gitea": {"ref", "before", "after", "repository", "repository.full_name"},
    "forgejo": {"ref", "before", "after", "repository", "repository.full_name"},
    "gogs": {"ref", "before", "after", "repository", "repository.full_name"},
    # Without `old` or `new` a change of Bitbucket Cloud reads as one that creates or deletes: that is how it says so.
    "bitbucket": {
        "push",
        "push.changes",
        *(f"push.changes.0.{side}.target{below}" for side in ("old", "new") for below in ("", ".hash")),
        *(f"push.changes.0.new.{key}" for key in ("name", "type")),
        "repository",
        "repository.full_name",
    },
    "bitbucket-dc": {
        "changes",
        *(f"changes.0.{key}" for key in ("fromHash", "toHash")),
        *(f"repository{key}" for key in ("", ".slug", ".project", ".project.key")),
    },
    "azure": {
        "eventType",
        "resource",
        "resource.refUpdates",
        *(f"resource.refUpdates.0.{key}" for key in ("name", "oldObjectId", "newObjectId")),
        *(f"resource.repository{key}" for key in ("", ".name", ".project", ".project.name")),
    },
    "generic": {"repository", "ref", "new"},
}


def sendable(delivery: ForgeDelivery) -> None:
    """Fail unless each push can be written as a message and read again, and each line is one line."""
    for push in delivery.pushes:
        message = RefUpdated(
            source="webhook/test",
            repo=RepoName("widget"),
            ref=push.ref,
            old=push.old,
            new=push.new,
            forced=push.forced,
            pusher=push.pusher,
            commits=push.commits,
            commit_count=push.commit_count,
            time=datetime(2026, 11, 30, tzinfo=UTC),
        )
        frame = encode_fitted(message)
        assert decode(frame.headers, frame.body) == message
    for line in (delivery.event, delivery.notice, delivery.repository, *(p.pusher for p in delivery.pushes)):
        assert line.isprintable()
        assert len(line) <= 500
    assert len({push.ref for push in delivery.pushes}) == len(delivery.pushes)
    assert bool(delivery.pushes) != bool(delivery.ignored)


def names_a_field(error: WebhookRefused, payload: object) -> None:
    """Fail unless the refusal is a 400 that names a field and repeats nothing that stood in the payload."""
    assert error.status == 400
    assert re.match(r"[A-Za-z0-9_.-]+: |header [A-Za-z-]+: missing", error.problem), error.problem
    assert one_line(error.problem) == error.problem
    for shown in ("\x00", "<script>", "--upload", "/etc"):
        assert shown not in str(error)


@pytest.mark.parametrize("name", [name for name in CASES if name != "expected"])
def test_every_field_removed_or_replaced_ends_in_a_message_or_in_a_refusal(name: str) -> None:
    case = CASES[name]
    forge, mapping = cast("Forge", case["forge"]), GenericMapping(**case.get("mapping", {}))
    payload = json.loads((DATA / f"{name}.json").read_text())
    whole = parse(forge, case["headers"], payload, mapping)
    sendable(whole)
    tried = 0
    for changed in each_changed(payload):
        tried += 1
        try:
            delivery = parse(forge, case["headers"], changed.payload, mapping)
        except WebhookRefused as error:
            names_a_field(error, changed.payload)
        else:
            if delivery != whole:
                sendable(delivery)
    assert tried > len(VALUES)
    assert parse(forge, case["headers"], payload, mapping) == whole


@pytest.mark.parametrize("forge", FORGES)
def test_what_decides_is_missed_by_name_and_nothing_else_loses_a_push(forge: Forge) -> None:
    request = forged(forge)
    payload = json.loads(request.body)
    (push,) = parse(forge, request.lowered, payload).pushes
    refused: dict[str, str] = {}
    for changed in each_changed(payload):
        if changed.how != "removed":
            continue
        path = ".".join(map(str, changed.path))
        try:
            (other,) = parse(forge, request.lowered, changed.payload).pushes
        except WebhookRefused as error:
            refused[path] = error.problem
        else:
            assert (other.ref, other.new) in {(push.ref, push.new), (push.ref, ZERO)}
    assert set(refused) == DECIDING[forge]
    for path, problem in refused.items():
        assert problem.startswith(path)
        assert problem.endswith(": missing")


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize("payload", [None, [], "push", 7, True, {}])
def test_a_body_that_is_no_object_of_this_forge_is_refused(forge: Forge, payload: object) -> None:
    with pytest.raises(WebhookRefused) as refusal:
        parse(forge, forged(forge).lowered, payload)
    assert refusal.value.status == 400


@pytest.mark.parametrize("forge", sorted(set(FORGES) - {"azure", "generic"}))
def test_a_request_that_names_no_event_is_refused_by_the_header_that_misses(forge: Forge) -> None:
    payload = json.loads(forged(forge).body)
    for key in ("eventKey", "object_kind", "event_name"):
        payload.pop(key, None)
    with pytest.raises(WebhookRefused, match=r"header X-.*: missing"):
        parse(forge, {}, payload)


@pytest.mark.parametrize(("forge", "event"), [(forge, event) for forge in FORGES for event in PAYLOADS[forge]])
@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v1"])
def test_an_unsigned_header_makes_no_other_push_of_a_signed_body(forge: Forge, event: str, ref: str) -> None:
    request = forged(forge, event, changes=[ForgedChange(ref, ZERO, NEW)])
    payload = json.loads(request.body)
    meant = parse(forge, request.lowered, payload)
    for header in ("push", "create", "delete", "repo:push", "repo:refs_changed", "Push Hook", "x" * 9999):
        headers = {name: header if "event" in name else value for name, value in request.lowered.items()}
        with suppress(WebhookRefused):  # refused is as good as ignored
            assert parse(forge, headers, payload).pushes in ((), meant.pushes)


def test_clone_urls_are_not_read() -> None:
    for forge in FORGES:
        for event in PAYLOADS[forge]:
            request = forged(forge, event)
            assert b"elsewhere" in request.body or forge in ("bitbucket-dc", "generic")
            assert "elsewhere" not in repr(parse(cast("Forge", forge), request.lowered, json.loads(request.body)))


@pytest.mark.parametrize("forge", ["bitbucket", "bitbucket-dc", "azure"])
def test_of_more_refs_than_a_delivery_may_announce_the_first_count_and_people_are_told(forge: Forge) -> None:
    changes = [ForgedChange(f"refs/tags/v{i}", ZERO, NEW) for i in range(MAX_LISTED + 500)]
    request = forged(forge, changes=changes)
    delivery = parse(forge, request.lowered, json.loads(request.body))
    assert [push.ref for push in delivery.pushes] == [change.ref for change in changes[:MAX_LISTED]]
    assert delivery.notice == "group/widget: only the first 1000 of 1500 changed refs are announced"


@pytest.mark.parametrize("forge", ["bitbucket", "bitbucket-dc", "azure"])
def test_a_ref_that_is_listed_twice_is_announced_once_with_its_whole_way(forge: Forge) -> None:
    middle = "3d" * 20
    changes = [ForgedChange("refs/heads/main", OLD, middle), ForgedChange("refs/heads/main", middle, NEW)]
    request = forged(forge, changes=changes)
    (push,) = parse(forge, request.lowered, json.loads(request.body)).pushes
    assert (push.old, push.new) == (OLD, NEW)


@pytest.mark.parametrize("forge", FORGES)
def test_the_largest_body_is_read_in_a_moment(forge: Forge) -> None:
    commits = [ForgedCommit(f"{i:040x}", "word " * 400) for i in range(5000)]
    request = forged(forge, commits=commits, total=5000)
    payload = json.loads(request.body)
    began = time.process_time()
    delivery = parse(forge, request.lowered, payload)
    assert time.process_time() - began < 0.5
    assert len(delivery.pushes[0].commits) <= 50
    sendable(delivery)
