"""What comes of a request, from its bytes to the outbox: every forge, every refusal, copies, and failures of ours."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from deploykit.errors import MessageError, OutboxError, SettingsError, WebError
from deploykit.messages import Message, RefUpdated
from deploykit.messages.topics import PRESETS
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName
from deploykit.outbox import Outbox
from deploykit.settings.node import Settings
from deploykit.settings.webhook import WebhookSettings
from deploykit.web.receiver import reading
from deploykit.web.receiver.app import make_receiver, outbox_publisher
from deploykit.web.receiver.deliveries import DeliveryStore, PublishedDelivery
from tests.support.asgi import Asked, Asker
from tests.support.forges import FORGES, NEW, OLD, ZERO, ForgedChange, ForgedRequest, signed
from tests.support.webhooks import OLD_SECRET, OURS, SECRETS, THEIRS, ReceiverWorld, push_of, source_of, with_payload

#: Forges that prove with an HMAC of the body; the others send their secret.
SIGNERS = [forge for forge in FORGES if forge not in ("gitlab", "azure")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReceiverWorld]:
    with ReceiverWorld(tmp_path) as made:
        yield made


def problem(asked: Asked, status: int) -> str:
    """Return the detail of a refusal, which is problem+json of this status."""
    assert asked.status == status, asked.text
    assert asked.headers["content-type"] == "application/problem+json"
    found = asked.json()
    assert found["status"] == status
    return str(found["detail"])


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forge", FORGES)
def test_a_push_of_each_forge_becomes_the_same_event(world: ReceiverWorld, forge: str) -> None:
    asked = world.push(forge)
    assert asked.status == 202, asked.text
    assert asked.json()["result"] == "queued"
    assert asked.headers["cache-control"] == "no-store"
    (message,) = world.refs()
    assert (message.repo, message.ref, message.old, message.new) == (OURS, "refs/heads/main", OLD, NEW)
    assert message.source == f"webhook/{forge}"
    assert message.correlation_id == message.id
    assert message.pusher
    (notice,) = world.notices()
    assert notice.text == message.summary
    assert world.counts == {(forge, "queued"): 1}


@pytest.mark.parametrize("forge", FORGES)
def test_the_old_secret_counts_too_and_another_does_not(world: ReceiverWorld, forge: str) -> None:
    assert world.push(forge, secret=OLD_SECRET).status == 202
    for secret in (b"another:secret", b""):
        text = problem(world.push(forge, secret=secret, delivery="another"), 401)
        assert SECRETS[forge].decode() not in text
    assert len(world.refs()) == 1
    assert world.counts[forge, "unverified"] == 2


@pytest.mark.parametrize("forge", SIGNERS)
def test_a_body_that_was_changed_on_its_way_is_refused(world: ReceiverWorld, forge: str) -> None:
    request = push_of(forge)
    problem(world.post(forge, ForgedRequest(request.headers, request.body.replace(b"ada", b"eve"))), 401)
    problem(world.post(forge, ForgedRequest(request.headers, request.body + b" ")), 401)
    assert world.messages() == []


@pytest.mark.parametrize("forge", [f for f in FORGES if f not in ("gitlab", "azure", "bitbucket", "bitbucket-dc")])
def test_a_form_is_taken_whichever_text_the_forge_signs(world: ReceiverWorld, forge: str) -> None:
    as_form, as_json = push_of(forge, form=True), push_of(forge)
    assert world.post(forge, as_form).json()["result"] == "queued"
    text = ForgedRequest({**as_form.headers, **signed(forge, as_json.body, SECRETS[forge])}, as_form.body)
    assert world.post(forge, text).json()["result"] == "copy"
    again = world.post(forge, as_json, X_GitHub_Delivery="other").json()
    assert again["result"] == "copy"
    assert len(world.refs()) == 1


def test_a_form_with_more_fields_after_the_signed_json_is_the_same_delivery(world: ReceiverWorld) -> None:
    request = push_of("gogs")
    assert world.post("gogs", request).json()["result"] == "queued"
    body = urlencode({"payload": request.body, "x": "1", "y": "2"}).encode()
    wrapped = ForgedRequest(
        {**request.headers, "Content-Type": "application/x-www-form-urlencoded", "X-Gogs-Delivery": "new"}, body
    )
    assert world.post("gogs", wrapped).json()["result"] == "copy"


def test_several_refs_of_one_delivery_are_one_step_with_one_thread(world: ReceiverWorld) -> None:
    changes = [ForgedChange(f"refs/heads/b{n}", OLD, NEW) for n in range(3)]
    asked = world.push("bitbucket-dc", changes=changes)
    assert asked.json()["messages"] == 3
    refs = world.refs()
    assert [message.ref for message in refs] == [change.ref for change in changes]
    assert {message.correlation_id for message in refs} == {refs[0].id}
    assert len({message.id for message in refs}) == 3
    assert len({record.id.rpartition(".")[0] for record in world.outbox.pending()}) == 1


def test_only_refs_that_the_settings_name_are_published(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, source={"refs": ("refs/tags/*",)}) as world:
        asked = world.push("github")
        assert (asked.status, asked.json()["result"]) == (200, "ignored")
        assert "refs/heads/main" in asked.json()["detail"]
        tag = ForgedChange("refs/tags/v1", ZERO, NEW)
        assert world.push("github", changes=[tag], delivery="2").status == 202
        assert [message.ref for message in world.refs()] == ["refs/tags/v1"]


def test_a_repository_that_is_not_in_the_settings_is_counted_and_logged_once(
    world: ReceiverWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for delivery in ("1", "2"):
        asked = world.push("github", repository="group/other", delivery=delivery)
        assert (asked.status, asked.json()["result"]) == (202, "unmapped")
    assert world.messages() == []
    assert world.counts["github", "unmapped"] == 2
    assert caplog.text.count("group/other") == 1
    assert "webhook.sources.github.repositories" in caplog.text


@pytest.mark.parametrize("forge", ["github", "bitbucket-dc"])
def test_a_ping_is_answered_with_200(world: ReceiverWorld, forge: str) -> None:
    asked = world.post(forge, push_of(forge, event="ping"))
    assert (asked.status, asked.json()["result"]) == (200, "ignored")
    assert world.messages() == []


def test_a_merge_request_is_one_line_for_people_and_published_once(world: ReceiverWorld) -> None:
    request = push_of("gitlab", event="merge")
    for _ in range(2):
        asked = world.post("gitlab", request)
        assert (asked.status, asked.json()["result"]) == (200, "ignored")
    assert world.refs() == []
    (line,) = world.notices()
    assert "Serve the new page" in line.text
    assert line.source == "webhook/gitlab"


def test_without_notices_nothing_but_the_event_is_published(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, notices=False) as world:
        world.push("github")
        world.post("gitlab", push_of("gitlab", event="merge"))
        assert len(world.messages()) == len(world.refs()) == 1


def test_old_readers_get_the_originals_form(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, legacy=True) as world:
        world.push("github")
        frames = [record.frame for record in world.outbox.pending()]
        assert f"[{OURS}] refs/heads/main {NEW}" in [frame.headers["subject"] for frame in frames]
        assert any(b"JSON: {" in frame.body for frame in frames)


@pytest.mark.parametrize("wanted", [False, True])
def test_old_readers_hear_of_deletions_only_where_that_is_switched_on(tmp_path: Path, wanted: bool) -> None:
    node = Settings(node=NodeName("hub"), legacy=True, legacy_deletes=wanted, topics=PRESETS["future"])
    assert node.webhook_legacy
    outbox = Outbox(tmp_path / "spool")
    publish = outbox_publisher(
        outbox, node.webhook, node.topics, legacy=node.webhook_legacy, legacy_deletes=node.legacy_deletes
    )
    ref = RefName("refs/heads/old")
    publish([RefUpdated(source="webhook/x", repo=OURS, ref=ref, old=ObjectId(NEW), new=ZERO_ID)])
    assert sorted(record.destination for record in outbox.pending()) == [
        "/topic/future.events.gitlab",
        *(["/topic/future.git.commits"] if wanted else []),
    ]


def test_nothing_to_publish_writes_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "spool")
    settings = WebhookSettings(notices=False, legacy=True)
    ref = RefName("refs/heads/old")
    outbox_publisher(outbox, settings)([RefUpdated(repo=OURS, ref=ref, old=ObjectId(NEW), new=ZERO_ID)])
    assert not list(outbox.pending())


def test_clone_urls_of_a_payload_are_nowhere_in_the_outbox(world: ReceiverWorld) -> None:
    for forge in FORGES:
        world.push(forge)
    for record in world.outbox.pending():
        assert b"elsewhere.invalid" not in record.frame.body
        assert not any("elsewhere.invalid" in value for value in record.frame.headers.values())


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forge", FORGES)
def test_a_replayed_request_publishes_nothing(world: ReceiverWorld, forge: str) -> None:
    request = push_of(forge)
    world.post(forge, request)
    again = world.post(forge, request)
    assert (again.status, again.json()["result"]) == (202, "copy")
    assert len(world.refs()) == 1
    assert world.counts == {(forge, "queued"): 1, (forge, "copy"): 1}


@pytest.mark.parametrize("forge", [forge for forge in FORGES if forge not in ("azure", "generic")])
def test_a_replay_under_another_delivery_id_publishes_nothing(world: ReceiverWorld, forge: str) -> None:
    request = push_of(forge)
    world.post(forge, request)
    headers = {
        name: "00000000-0000-4000-8000-000000000000" if value == "5b1f7c1e-8d5e-4a55-9d4e-0c6a5a3f8a10" else value
        for name, value in request.headers.items()
    }
    assert headers != request.headers
    assert world.post(forge, ForgedRequest(headers, request.body)).json()["result"] == "copy"
    assert len(world.refs()) == 1


def test_an_equal_payload_under_another_id_that_is_signed_is_another_push(tmp_path: Path) -> None:
    """A branch that went back and forth: GitLab's payload does not say when, its signed id tells the two apart."""
    token = b"whsec_" + base64.b64encode(bytes(range(32)))
    (tmp_path / "gitlab.new").touch(0o600)
    (tmp_path / "gitlab.new").write_bytes(token)
    with ReceiverWorld(tmp_path) as world:
        requests = [push_of("gitlab", secret=token, delivery=delivery) for delivery in ("first", "second")]
        for request in (*requests, requests[0]):
            world.post("gitlab", request)
        # The header that names the delivery is not what is signed.
        world.post("gitlab", requests[0], Idempotency_Key="third")
        first, second = world.refs()
        assert first.id != second.id
        assert (first.ref, first.new) == (second.ref, second.new)
        assert world.counts == {("gitlab", "queued"): 2, ("gitlab", "copy"): 2}


def test_a_copy_under_another_id_does_not_use_up_that_id(world: ReceiverWorld) -> None:
    request = push_of("github")
    world.post("github", request)
    world.post("github", request, X_GitHub_Delivery="later")
    later = world.push("github", delivery="later", changes=[ForgedChange("refs/heads/main", NEW, OLD)])
    assert later.json()["result"] == "queued"


def test_pushes_that_come_in_another_order_are_all_published_and_an_old_one_again_is_not(world: ReceiverWorld) -> None:
    first = push_of("github", delivery="1", changes=[ForgedChange("refs/heads/main", OLD, NEW)])
    second = push_of("github", delivery="2", changes=[ForgedChange("refs/heads/main", NEW, "3c" * 20)])
    for request in (second, first, second, first):
        assert world.post("github", request).status == 202
    assert [message.new for message in world.refs()] == ["3c" * 20, NEW]


def test_after_a_crash_before_the_mark_the_same_delivery_makes_the_same_messages(tmp_path: Path) -> None:
    sent: list[Sequence[Message]] = []
    request = push_of("bitbucket-dc", changes=[ForgedChange(f"refs/heads/{n}", OLD, NEW) for n in "ab"])
    for number in range(2):
        with ReceiverWorld(tmp_path, publish=sent.append) as world:
            assert world.post("bitbucket-dc", request).json()["result"] == "queued"
            world.store.prune(float("inf"))  # as if it had not been marked
        assert len(sent) == number + 1
    assert [message.id for message in sent[0]] == [message.id for message in sent[1]]


def test_the_line_about_a_merge_has_the_same_id_after_a_crash_too(tmp_path: Path) -> None:
    sent: list[Sequence[Message]] = []
    request = push_of("gitlab", event="merge")
    for _ in range(2):
        with ReceiverWorld(tmp_path, publish=sent.append) as world:
            world.post("gitlab", request)
            world.store.prune(float("inf"))
    assert [message.id for message in sent[0]] == [message.id for message in sent[1]]


def test_two_copies_at_the_same_time_are_published_once(world: ReceiverWorld) -> None:
    request = push_of("github")

    async def both() -> list[int]:
        async def one() -> int:
            return await asyncio.to_thread(lambda: world.post("github", request).status)

        return await asyncio.gather(*(one() for _ in range(8)))

    assert asyncio.run(both()) == [202] * 8
    assert len(world.refs()) == 1


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_only_post_is_taken(world: ReceiverWorld, method: str) -> None:
    asked = Asker(app=world.app).ask(method, "/hook/gitea?payload={}")
    assert asked.status == 405
    assert asked.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/", "/hook", "/hook/", "/hook/nobody", "/hook/github/", "/hook/../hook/x", "//hook/github"]
)
def test_no_other_path_is_served(world: ReceiverWorld, path: str) -> None:
    asked = Asker(app=world.app).ask("POST", path)
    problem(asked, 404)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-encoding": "gzip"}, "gzip"),
        ({"content-encoding": "gzip, identity"}, "gzip"),
        ({"content-encoding": "br"}, "br"),
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": ""}, "no content-type"),
        ({"content-type": "application/json, text/plain"}, "json, text"),
        ({"content-type": "application/json; charset=utf-16"}, "utf-16"),
        ({"content-type": "multipart/form-data; boundary=x"}, "multipart"),
    ],
)
def test_what_is_compressed_or_of_another_type_is_refused(
    world: ReceiverWorld, headers: dict[str, str], says: str
) -> None:
    request = push_of("github")
    body = gzip.compress(request.body) if "content-encoding" in headers else request.body
    kept = {name: value for name, value in request.headers.items() if name.lower() not in headers}
    text = problem(world.post("github", ForgedRequest({**kept, **headers}, body)), 415)
    assert says in text


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON;charset=UTF-8", 'application/json; charset="utf-8"']
)
def test_json_in_utf_8_is_taken_however_that_is_written(world: ReceiverWorld, kind: str) -> None:
    request = push_of("github")
    assert world.post("github", ForgedRequest({**request.headers, "Content-Type": kind}, request.body)).status == 202


def test_a_header_that_came_twice_proves_nothing(world: ReceiverWorld) -> None:
    request = push_of("github")
    pairs = [*request.headers.items(), ("X-Hub-Signature-256", request.headers["X-Hub-Signature-256"])]
    asked = Asker(app=world.app).ask("POST", "/hook/github", pairs, [request.body])
    problem(asked, 401)


NO_PAYLOADS = (
    *(b"", b"{", b"null", b"[]", b'"push"', b"\xff", b"\xef\xbb\xbf{}"),
    *(b'{"ref": NaN}', b'{"ref": 1, "ref": 2}', b'{"ref": "\\ud800"}'),
    *(b"[" * 100_000, b'{"a":' * 5000, b'{"n": ' + b"9" * 5000 + b"}"),
)


@pytest.mark.parametrize("body", NO_PAYLOADS, ids=lambda body: ascii(body[:20]))
def test_a_signed_body_that_is_no_payload_is_refused_with_400(world: ReceiverWorld, body: bytes) -> None:
    headers = {**push_of("github").headers, **signed("github", body, SECRETS["github"])}
    problem(world.post("github", ForgedRequest(headers, body)), 400)


def test_a_form_that_is_none_is_refused_with_400(world: ReceiverWorld) -> None:
    wrong = (b"", b"payload", b"x=1", b"x=1&payload={}", b"payload={}&payload={}", b"payload=%ff", b"payload=%7B")
    for body in (*wrong, b"&" * 200, b"payload={}" + b"&" * 200):
        headers = {**push_of("github", form=True).headers, **signed("github", body, SECRETS["github"])}
        problem(world.post("github", ForgedRequest(headers, body)), 400)


def test_nothing_is_parsed_before_it_is_verified(world: ReceiverWorld) -> None:
    request = push_of("github")
    problem(world.post("github", ForgedRequest(request.headers, b"{" * 50)), 401)


def test_a_payload_that_breaks_our_own_code_is_no_500(
    world: ReceiverWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(reading, "parse", broken)
    assert "ZeroDivisionError" in problem(world.push("github"), 400)
    assert "Traceback" in caplog.text


# -- long, slow, many --------------------------------------------------------------------------------------------------


def test_a_longer_body_than_the_cap_is_refused_by_its_length_and_by_its_bytes(world: ReceiverWorld) -> None:
    piece = b"x" * (1 << 20)
    long = ForgedRequest(push_of("github").headers, b"")
    problem(world.post("github", long, [piece] * 26, content_length=str(26 << 20)), 413)
    problem(world.post("github", long, [piece] * 26), 413)
    problem(world.post("github", long, [piece] * 5 + [b"x"]), 413)
    problem(world.post("github", long, [piece] * 2, content_length="9" * 5000), 413)
    assert world.counts["github", "too-large"] == 4
    problem(world.post("github", long, [piece] * 5), 401)


def test_the_largest_body_that_the_settings_allow_is_taken(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, max_body=25 << 20) as world:
        request = with_payload("github", lambda payload: payload.update(padding="x" * (24 << 20)))
        assert world.post("github", request).status == 202


def test_a_body_in_many_pieces_is_one_body(world: ReceiverWorld) -> None:
    request = push_of("github")
    pieces = [request.body[at : at + 1] for at in range(len(request.body))]
    assert world.post("github", request, pieces).status == 202


def never_ending(app: Any, headers: dict[str, str], pieces: int) -> Asked:
    """Ask with a body that stops in the middle, and return the answer."""
    import tests.support.asgi as support

    sent: list[Any] = []
    left = [b"{"] * pieces

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/hook/github",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "query_string": b"",
        "client": None,
    }
    asyncio.run(app(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return support.Asked(status=sent[0]["status"], headers=found, cookies=(), body=sent[1]["body"])


def test_a_body_that_does_not_arrive_in_time_is_given_up(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, deadline=0.05) as world:
        asked = never_ending(world.app, push_of("github").headers, 3)
        assert "0.05 s" in problem(asked, 408)
        assert asked.headers["connection"] == "close"
        assert world.counts == {("github", "too-slow"): 1}


def test_a_refused_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    with ReceiverWorld(tmp_path, deadline=0.05) as world:
        headers = {**push_of("github").headers, "Content-Encoding": "gzip"}
        problem(never_ending(world.app, headers, 3), 415)


# -- what fails on our side --------------------------------------------------------------------------------------------


def test_an_outbox_that_cannot_be_written_is_503_and_the_next_try_is_taken(tmp_path: Path) -> None:
    failing = True
    taken: list[Message] = []

    def publish(messages: Sequence[Message]) -> None:
        if failing:
            raise OutboxError("cannot write to /spool: No space left on device", "make room")
        taken.extend(messages)

    with ReceiverWorld(tmp_path, publish=publish) as world:
        asked = world.push("github")
        assert "outbox" in problem(asked, 503)
        assert int(asked.headers["retry-after"]) > 0
        assert "No space" not in asked.text
        assert "No space" in world.intake.failure
        failing = False
        assert world.push("github").json()["result"] == "queued"
        assert world.intake.failure == ""
    assert [type(message) for message in taken] == [RefUpdated]


def test_a_full_disk_under_the_real_outbox_is_503(world: ReceiverWorld) -> None:
    for path in sorted((world.root / "spool").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (world.root / "spool").rmdir()
    problem(world.push("github"), 503)


def test_a_message_that_nobody_could_read_is_the_senders_fault(tmp_path: Path) -> None:
    def publish(_messages: Sequence[Message]) -> None:
        raise MessageError("ref: not a ref")

    with ReceiverWorld(tmp_path, publish=publish) as world:
        problem(world.push("github"), 400)


class BrokenStore:
    """A store whose disk has failed."""

    def find(self, source: str, delivery_id: str, digest: bytes) -> PublishedDelivery | None:
        raise WebError("cannot read deliveries.db: disk I/O error")

    def mark(self, source: str, delivery_id: str, digest: bytes, now: float) -> None:
        raise WebError("cannot write to deliveries.db: disk full")


def test_a_store_that_fails_loses_nothing(tmp_path: Path) -> None:
    sent: list[Sequence[Message]] = []
    settings = WebhookSettings(sources={"github": source_of("github", tmp_path)})
    app = make_receiver(settings, sent.append, BrokenStore())
    request = push_of("github")
    for _ in range(2):
        asked = Asker(app=app).ask("POST", "/hook/github", request.headers, [request.body])
        assert asked.status == 202
    assert [m.id for m in sent[0]] == [m.id for m in sent[1]]


# -- secrets and the log -----------------------------------------------------------------------------------------------


def test_the_log_names_what_came_and_never_a_secret_or_a_digest(
    world: ReceiverWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for forge in FORGES:
        request = push_of(forge)
        world.post(forge, request)
        world.post(forge, push_of(forge, secret=b"wrong:secret"), X_Evil="a\nb")
        values = signed(forge, request.body, SECRETS[forge]).values()
        for value in (*values, SECRETS[forge].decode()):
            assert value.removeprefix("sha256=") not in caplog.text
    assert "x-hub-signature-256" in caplog.text
    assert "content-type application/json" in caplog.text
    assert "127.0.0.1" in caplog.text
    assert "x-evil" not in caplog.text


def test_refusals_are_logged_once_a_minute_and_all_counted(
    world: ReceiverWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        world.push("github", secret=b"wrong", delivery=str(number))
    assert caplog.text.count("source github: 401") == 1
    assert world.counts["github", "unverified"] == 20


def test_a_secret_that_is_changed_counts_at_once(world: ReceiverWorld) -> None:
    file = world.root / "github.new"
    replacement = world.root / "replacement"
    replacement.touch(0o600)
    replacement.write_bytes(b"a newer secret\n")
    replacement.rename(file)
    problem(world.push("github"), 401)
    assert world.push("github", secret=b"a newer secret").status == 202


def test_a_file_of_a_secret_that_went_wrong_changes_nothing_and_is_shown(world: ReceiverWorld) -> None:
    file = world.root / "github.new"
    file.chmod(0o644)
    assert world.push("github").status == 202
    assert any("0644" in line for line in world.intake.problems)
    file.unlink()
    assert world.push("github", delivery="2", changes=[ForgedChange("refs/heads/x", OLD, NEW)]).status == 202
    file.touch(0o600)
    file.write_bytes(SECRETS["github"])
    world.push("github", delivery="3")
    assert world.intake.problems == ()


@pytest.mark.parametrize(("mode", "text"), [(0o644, "secret"), (0o600, ""), (0o600, "  "), (0o600, "two\nlines")])
def test_at_the_start_a_bad_file_is_refused(tmp_path: Path, mode: int, text: str) -> None:
    file = tmp_path / "github.new"
    file.touch(mode)
    file.chmod(mode)
    file.write_text(text)
    settings = WebhookSettings(sources={"github": source_of("github", tmp_path)})
    with pytest.raises(SettingsError, match=r"webhook\.sources\.github\.secret_files\[0\]"):
        make_receiver(settings, lambda _: None, BrokenStore())


def test_the_application_can_be_mounted_below_another_one(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    sent: list[Sequence[Message]] = []
    settings = WebhookSettings(sources={"github": source_of("github", tmp_path)})
    with DeliveryStore(tmp_path / "deliveries.db") as store:
        app = Starlette(routes=[Mount("/in", make_receiver(settings, sent.append, store))])
        request = push_of("github")
        asked = Asker(app=app).ask("POST", "/in/hook/github", request.headers, [request.body])
    assert asked.status == 202
    assert len(sent) == 1


def test_an_answer_says_what_became_of_it(world: ReceiverWorld) -> None:
    found = json.loads(world.push("github").body)
    assert found == {
        "result": "queued",
        "detail": "1 ref queued",
        "messages": 1,
        "delivery": "5b1f7c1e-8d5e-4a55-9d4e-0c6a5a3f8a10",
    }
    assert THEIRS not in json.dumps(found)
