"""What a signature does not cover is no way around it, and what is no push starts nothing."""

from __future__ import annotations

import logging
import os
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import WebhookRefused
from deploykit.web.receiver.payload import body_of
from deploykit.web.receiver.reading import read_delivery
from deploykit.web.receiver.signatures import WebhookSecret
from tests.support.forges import FORGES, NEW, OLD, ForgedChange, ForgedCommit, ForgedRequest
from tests.support.webhooks import OLD_SECRET, ReceiverWorld, push_of

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReceiverWorld]:
    with ReceiverWorld(tmp_path) as made:
        yield made


def retyped(request: ForgedRequest, kind: str) -> ForgedRequest:
    """Return a request with the same bytes and signature, and another content type, which nobody signs."""
    return ForgedRequest({**request.headers, "Content-Type": kind}, request.body)


@pytest.mark.parametrize("forge", FORGES)
def test_json_is_no_form_though_a_commit_message_has_the_field_of_one(world: ReceiverWorld, forge: str) -> None:
    payload = push_of(forge, changes=[ForgedChange("refs/heads/forged", OLD, "ef" * 20)]).body
    commits = [ForgedCommit(NEW, f"harmless&payload={quote_plus(payload)}&")]
    request = push_of(forge, commits=commits)
    assert world.post(forge, retyped(request, FORM)).status == 400
    assert world.messages() == []
    assert world.post(forge, request).json()["result"] == "queued"


def test_a_form_of_nothing_but_escapes_takes_little_room_before_it_is_verified(world: ReceiverWorld) -> None:
    body = b"payload=" + b"%41" * (1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(WebhookRefused, match="the signature is wrong"):
            read_delivery(
                "github",
                world.settings.sources["github"],
                (WebhookSecret.of("secret"),),
                {"content-type": FORM, "x-hub-signature-256": f"sha256={'0' * 64}"},
                body,
                now=world.now,
            )
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_the_field_of_a_form_is_read_as_it_was_written(value: bytes) -> None:
    assert body_of("form", b"payload=" + quote_plus(value).encode()).text == value


@given(
    st.lists(st.sampled_from([b"%", b"4", b"a", b"Z", b"=", b"+", b"_", b"\n", b"\r\n", b" ", b"\xff"])).map(b"".join)
)
def test_a_field_is_read_as_every_other_reader_does_or_not_at_all(raw: bytes) -> None:
    try:
        text = body_of("form", b"payload=" + raw).text
    except WebhookRefused:
        assert b"%" in raw
    else:
        assert text == unquote_to_bytes(raw.replace(b"+", b" "))


def test_a_form_is_no_json(world: ReceiverWorld) -> None:
    assert world.post("github", retyped(push_of("github", form=True), "application/json")).status == 400


@pytest.mark.parametrize("forge", FORGES)
def test_a_ref_that_stays_where_it_was_starts_nothing(world: ReceiverWorld, forge: str) -> None:
    """As "Test Delivery" of Gitea and Gogs sends it."""
    asked = world.push(forge, changes=[ForgedChange("refs/heads/main", NEW, NEW)])
    assert (asked.status, asked.json()["result"]) == (200, "ignored")
    assert "a test?" in asked.json()["detail"]
    assert world.messages() == []


@pytest.mark.parametrize("forge", ["bitbucket", "bitbucket-dc", "azure"])
def test_beside_a_ref_that_stays_the_others_are_announced(world: ReceiverWorld, forge: str) -> None:
    changes = [ForgedChange("refs/heads/stays", NEW, NEW), ForgedChange("refs/heads/moves", OLD, NEW)]
    assert world.push(forge, changes=changes).json()["result"] == "queued"
    assert [message.ref for message in world.refs()] == ["refs/heads/moves"]


def test_what_is_published_again_after_a_crash_has_the_same_lines_for_people(tmp_path: Path) -> None:
    ids = []
    for number in range(2):
        with ReceiverWorld(tmp_path / str(number)) as world:
            world.push("bitbucket", changes=[ForgedChange(f"refs/heads/{n}", OLD, NEW) for n in range(2)])
            ids.append([notice.id for notice in world.notices()])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


def test_copies_are_logged_once_a_minute(world: ReceiverWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        world.push("github")
    assert caplog.text.count("a copy") == 1
    assert world.counts["github", "copy"] == 19


def test_an_id_that_comes_again_with_another_payload_is_a_warning(
    world: ReceiverWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A mapping that names a project's number as the delivery's id loses all pushes but the first."""
    caplog.set_level(logging.WARNING)
    for number in range(3):
        world.push("generic", delivery="7", changes=[ForgedChange(f"refs/heads/{number}", OLD, NEW)])
    assert caplog.text.count("the id, with another payload") == 1


def test_a_secret_that_could_not_be_read_for_a_moment_counts_once_it_can(world: ReceiverWorld) -> None:
    file = world.root / "github.new"
    file.write_bytes(b"a newer secret\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    secrets = world.intake._secrets["github"]
    lowest = os.dup(0)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        secrets.current()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in secrets.problem
    assert world.push("github", secret=b"a newer secret").status == 202
    assert world.push("github", secret=OLD_SECRET).json()["result"] == "copy"
    assert world.intake.problems == ()


def test_a_file_that_stays_wrong_is_logged_once(world: ReceiverWorld, caplog: pytest.LogCaptureFixture) -> None:
    (world.root / "github.new").chmod(0o644)
    for number in range(5):
        world.push("github", delivery=str(number))
    assert caplog.text.count("0644") == 1
