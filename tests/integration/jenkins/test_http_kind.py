"""Other build servers: one request as the settings write it, and what its answer means."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deploykit.daemons.jenkins.http_kind import HttpBuildServer
from deploykit.daemons.jenkins.servers import open_server
from deploykit.errors import MayNotLook
from deploykit.settings.buildservers import BuildServerSettings
from tests.integration.jenkins.conftest import order, secret
from tests.support.stubhttp import Fault, Reply, Seen, StubServer


class Recorder:
    """Answers everything alike and keeps what came."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.answer = reply
        self.port = 0

    def reply(self, seen: Seen) -> Reply:
        """Return the answer."""
        del seen
        return self.answer

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return None: nothing goes wrong."""
        del seen
        return None


@contextmanager
def server(status: int = 202, body: bytes = b"", **headers: str) -> Iterator[Recorder]:
    recorder = Recorder(Reply(status=status, body=body, headers=headers))
    stub = StubServer(0, recorder)
    recorder.port = stub.server_address[1]
    thread = Thread(target=stub.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield recorder
    finally:
        stub.end()
        thread.join(30)


def client(recorder: Recorder, path: str = "/run/{job}", **more: Any) -> HttpBuildServer:
    settings = BuildServerSettings(kind="http", url=f"http://127.0.0.1:{recorder.port}{path}", timeout=10.0, **more)
    assert settings.problems() == ()
    return HttpBuildServer("ci", settings)


def test_the_request_is_as_the_settings_write_it(tmp_path: Path) -> None:
    files = {
        "headers_file": secret(tmp_path / "headers", "Authorization: Bearer canary"),
        "secret_file": secret(tmp_path / "key", "canary-key"),
    }
    with server() as ci:
        ours = client(
            ci,
            "/projects/{job}/run?ref={DEPLOYKIT_REF}",
            headers={"X-From": "deploykit"},
            body='{"commit": "{DEPLOYKIT_COMMIT}", "id": "{correlation_id}"}',
            **files,
        )
        answer = ours.start(order("team/shop"), deadline=10)
    assert (answer.kind, answer.retry, answer.queue_item) == ("queued", False, None)
    (seen,) = ci.seen
    assert (seen.method, seen.path) == ("POST", "/projects/team%2Fshop/run")
    assert seen.query == "ref=refs%2Fheads%2Fmain"
    assert (seen.headers["authorization"], seen.headers["x-from"]) == ("Bearer canary", "deploykit")
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body) == {"commit": "1f" * 20, "id": "c1"}
    digest = hmac.new(b"canary-key", seen.body, hashlib.sha256).hexdigest()
    assert seen.headers["x-hub-signature-256"] == f"sha256={digest}"


def test_a_login_and_the_jobs_own_token_are_sent(tmp_path: Path) -> None:
    with server() as ci:
        ours = client(
            ci,
            user="me",
            token_file=secret(tmp_path / "token", "canary"),
            body="token={token}&ref={DEPLOYKIT_REF}",
            body_type="application/x-www-form-urlencoded",
        )
        assert ours.start(order(token_file=secret(tmp_path / "job", "canary&job")), deadline=10).accepted
    (seen,) = ci.seen
    assert seen.headers["authorization"] == "Basic bWU6Y2FuYXJ5"
    assert seen.form == {"token": "canary&job", "ref": "refs/heads/main"}


def test_other_methods_are_sent_without_a_body() -> None:
    with server() as ci:
        assert client(ci, method="GET").start(order(), deadline=10).accepted
    assert (ci.seen[0].method, ci.seen[0].body) == ("GET", b"")


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (200, "queued", False),
        (204, "queued", False),
        (302, "refused", False),
        (400, "refused", False),
        (401, "refused", False),
        (403, "refused", False),
        (404, "missing", False),
        (409, "refused", False),
        (422, "refused", False),
        (429, "busy", True),
        (500, "unanswered", True),
        (503, "busy", True),
    ],
)
def test_each_answer_is_told_apart(status: int, kind: str, retry: bool) -> None:
    with server(status, b"because" if status != 204 else b"", Location="http://127.0.0.1:1/") as ci:
        answer = client(ci).start(order(), deadline=10)
    assert (answer.kind, answer.retry) == (kind, retry)
    assert bool(answer.remedy) != answer.accepted
    assert len(ci.seen) == 1


def test_a_status_that_means_yes_can_be_set() -> None:
    with server(302) as ci:
        assert client(ci, accept=(302,)).start(order(), deadline=10).accepted


@pytest.mark.parametrize("path", ["/x/{UNKNOWN}", "/x/{token}"])
def test_a_value_that_is_missing_is_named_and_nothing_sent(path: str) -> None:
    with server() as ci:
        answer = client(ci, path).start(order(), deadline=10)
    assert (answer.kind, answer.retry, ci.seen) == ("refused", False, [])
    assert path[3:] in answer.detail


def test_a_secret_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    with server() as ci:
        answer = client(ci, headers_file=tmp_path / "absent").start(order(), deadline=10)
        of_job = client(ci).start(order(token_file=tmp_path / "absent"), deadline=10)
    assert (answer.kind, answer.retry, ci.seen) == ("unreachable", True, [])
    assert (of_job.kind, of_job.retry) == ("refused", True)


def test_nobody_listens() -> None:
    with server() as ci:
        ours = client(ci)
    assert ours.start(order(), deadline=10).kind == "unreachable"


def test_no_secret_is_shown(tmp_path: Path) -> None:
    headers = secret(tmp_path / "headers", "Authorization: Bearer canary-header")
    token = secret(tmp_path / "job", "canary-job")
    with server(400, b"you sent canary-header and canary-job") as ci:
        answer = client(ci, "/x/{token}", headers_file=headers).start(order(token_file=token), deadline=10)
    assert "you sent *** and ***" in answer.detail
    assert "canary" not in str(answer)
    with server(400, b"-" * 190 + b"canary-header") as ci:  # cut where it stands, in what is shown of an answer
        assert "canary" not in str(client(ci, headers_file=headers).start(order(), deadline=10))


def test_it_has_no_queue_to_look_into() -> None:
    settings = BuildServerSettings(kind="http", url="https://ci.example.org/")
    ours = open_server("ci", settings)
    with pytest.raises(MayNotLook):
        ours.find(order(), deadline=1)
    assert ours.follow(1, order=order(), deadline=1).kind == "hidden"
