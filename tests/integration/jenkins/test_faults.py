"""A Jenkins that never answers, answers 1 GB, drips, redirects, lies, breaks off or is not there.

No fault costs more than the deadline or a little memory; none sends a token elsewhere; and what may have been queued
is found before anybody asks again.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import ssl
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import attrs
import pytest

from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.daemons.jenkins.lookup import LAST_BUILDS
from deploykit.daemons.jenkins.ports import BuildAnswer
from deploykit.errors import BuildServerError, MayNotLook
from tests.brokers.certs import Authority
from tests.integration.jenkins.conftest import order, secret
from tests.support.badservers import raw_server
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

#: Seconds of one exchange where a test waits for its end; long enough for the request to be sent.
SHORT = 1.5
#: Long after any deadline here, on a busy machine.
SOON = 10.0


def client(jenkins: StubJenkins, directory: Path, **more: Any) -> JenkinsServer:
    return JenkinsServer("ci", jenkins.settings(directory, **more))


def start(server: JenkinsServer, deadline: float = 20) -> BuildAnswer:
    began = monotonic()
    answer = server.start(order(), deadline=deadline)
    assert monotonic() - began < SOON
    return answer


@pytest.mark.parametrize("kind", ["never", "drip", "close", "garbage"])
@pytest.mark.parametrize("carried_out", [True, False])
def test_after_a_lost_answer_the_order_is_found_if_it_arrived(
    jenkins: StubJenkins, tmp_path: Path, kind: Any, carried_out: bool
) -> None:
    jenkins.fault(kind, method="POST", carried_out=carried_out)
    answer = start(client(jenkins, tmp_path, timeout=SHORT))
    assert (answer.kind, answer.retry) == ("unanswered", True)
    assert answer.remedy
    wait_until(jenkins.posts, "the order at Jenkins, which nobody waited for")
    found = client(jenkins, tmp_path).find(order(), deadline=20)  # with time for its answers
    assert (found.queue_item if found else None) == (1 if carried_out else None)


def test_an_order_that_may_have_become_an_older_build_than_jenkins_shows_is_no_order_that_never_came(
    jenkins: StubJenkins, tmp_path: Path
) -> None:
    server, asked = client(jenkins, tmp_path), time.time()
    jenkins.queue.release()
    jenkins.fault("close", method="POST")
    assert start(server).kind == "unanswered"
    for number in range(LAST_BUILDS):
        assert server.start(order(correlation_id=f"other-{number}"), deadline=10).kind == "queued"
    jenkins.queue.wait_for_builds("shop-tests", LAST_BUILDS + 1)
    with pytest.raises(MayNotLook, match="shows no build as old as the request"):
        server.find(attrs.evolve(order(), since=asked), deadline=10)
    assert server.find(attrs.evolve(order(correlation_id="c9"), since=asked + 3600), deadline=10) is None


@pytest.mark.parametrize("status", [500, 502, 504])
def test_after_a_failure_of_the_server_the_order_is_looked_for(
    jenkins: StubJenkins, tmp_path: Path, status: int
) -> None:
    jenkins.fault("status", method="POST", status=status)
    server = client(jenkins, tmp_path)
    assert start(server).kind == "unanswered"
    assert server.find(order(), deadline=10) is not None


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(jenkins: StubJenkins, tmp_path: Path, status: int) -> None:
    jenkins.fault("status", method="POST", status=status, headers={"Retry-After": "3"}, carried_out=False)
    server = client(jenkins, tmp_path)
    answer = start(server)
    assert (answer.kind, answer.retry, answer.retry_after) == ("busy", True, 3.0)
    assert start(server).kind == "queued"


@pytest.mark.parametrize("kind", ["middle", "trickle"])
def test_an_answer_whose_body_does_not_come_counts(jenkins: StubJenkins, tmp_path: Path, kind: Any) -> None:
    jenkins.fault(kind, method="POST")
    began = monotonic()
    answer = start(client(jenkins, tmp_path, timeout=60.0), deadline=60)
    assert (answer.kind, answer.queue_item) == ("queued", 1)
    assert monotonic() - began < SOON  # and is not waited for


@pytest.mark.parametrize("kind", ["middle", "trickle"])
def test_a_refusal_whose_body_does_not_come_counts(jenkins: StubJenkins, tmp_path: Path, kind: Any) -> None:
    jenkins.queue.jobs["shop-tests"].disabled = True
    jenkins.fault(kind, method="POST")
    answer = start(client(jenkins, tmp_path, timeout=SHORT))
    assert (answer.kind, answer.retry) == ("refused", False)


def test_no_descriptor_is_left_behind(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path, timeout=0.05)
    start(server)
    before = len(list(Path("/proc/self/fd").iterdir()))
    kinds: list[Any] = ["never", "drip", "close", "garbage", "middle", "huge", "trickle"]
    for kind in kinds * 2:
        jenkins.fault(kind, method="POST")
        start(server)
        jenkins.fault(kind, method="GET")
        with contextlib.suppress(BuildServerError):
            server.find(order(), deadline=1)
    jenkins.stop()  # its ends of the connections are in this process, too
    start(server)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_look_that_breaks_off_is_looked_again(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    start(server)
    jenkins.fault("middle", path="/api/json", times=2)
    with pytest.raises(BuildServerError, match="broke off"):
        server.find(order(), deadline=10)
    assert server.find(order(), deadline=10) is not None


def test_a_gigabyte_costs_neither_time_nor_memory(jenkins: StubJenkins, tmp_path: Path) -> None:
    jenkins.fault("huge", method="POST", times=2)
    jenkins.fault("huge", method="GET", times=2)
    server = client(jenkins, tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert start(server).kind == "queued"
    jenkins.queue.jobs["shop-tests"].disabled = True
    assert start(server).kind == "refused"
    with pytest.raises(MayNotLook):
        server.find(order(), deadline=10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    assert jenkins.sent_bytes < 64 << 20


def test_endless_headers_end_the_exchange(tmp_path: Path) -> None:
    flood = b"HTTP/1.1 201 Created\r\n" + b"X: y\r\n" * 200_000
    with raw_server(flood) as port:
        server = JenkinsServer("ci", StubJenkins([]).settings(tmp_path, url=f"http://127.0.0.1:{port}/"))
        assert start(server).kind == "unanswered"


@contextmanager
def other_host() -> Iterator[tuple[int, list[bytes]]]:
    """A host that a redirect leads to; what it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        yield listener.getsockname()[1], heard
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            return
        with peer:
            heard.append(peer.recv(1000))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_to_another_host(jenkins: StubJenkins, tmp_path: Path, status: int) -> None:
    with other_host() as (port, heard):
        there = f"http://127.0.0.1:{port}/jenkins/job/shop-tests/"
        jenkins.fault("status", status=status, headers={"Location": there}, times=10, carried_out=False)
        answer = start(client(jenkins, tmp_path))
        assert (answer.kind, answer.retry) == ("refused" if status != 302 else answer.kind, False)
        server = client(jenkins, tmp_path, login="password")
        server.start(order(), deadline=10)
        with pytest.raises(BuildServerError):
            server.find(order(), deadline=10)
        assert server.follow(1, order=order(), deadline=10).kind == "unreachable"
    assert heard == []


def test_a_location_on_another_host_is_not_visited(jenkins: StubJenkins, tmp_path: Path) -> None:
    with other_host() as (port, heard):
        jenkins.fault("location", method="POST", location=f"http://127.0.0.1:{port}/queue/item/1/")
        server = client(jenkins, tmp_path)
        answer = start(server)
        assert (answer.kind, answer.queue_item, answer.url) == ("queued", 1, f"{jenkins.url}queue/item/1/")
        assert server.follow(1, order=order(), deadline=10).kind == "waiting"
    assert heard == []


def test_a_location_with_anothers_number_is_found_out(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    server.start(order(correlation_id="of-another"), deadline=10)
    jenkins.fault("location", method="POST", location="/jenkins/queue/item/1/")
    answer = server.start(order(), deadline=10)
    assert answer.queue_item == 1
    assert server.follow(1, order=order(), deadline=10).kind == "gone"
    found = server.find(order(), deadline=10)
    assert found is not None
    assert found.queue_item == 2


def test_a_jenkins_that_knows_itself_by_another_name_works(tmp_path: Path) -> None:
    with StubJenkins([StubJob(name="shop-tests")], root_url="https://ci.example.org/") as jenkins:
        jenkins.queue.hold()
        server = client(jenkins, tmp_path)
        answer = start(server)
        assert (answer.kind, answer.queue_item) == ("queued", 1)
        assert server.follow(1, order=order(), deadline=10).kind == "waiting"
        assert server.find(order(), deadline=10) is not None


def test_a_restart_on_the_same_port_loses_nothing_that_was_queued(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    start(server)
    jenkins.stop()
    answer = start(server)
    assert (answer.kind, answer.retry) == ("unreachable", True)
    with pytest.raises(BuildServerError):
        server.find(order(), deadline=10)
    assert server.follow(1, order=order(), deadline=10).kind == "unreachable"
    jenkins.start()
    assert start(server).kind == "joined"


def test_all_requests_of_an_order_share_its_deadline(jenkins: StubJenkins, tmp_path: Path) -> None:
    jenkins.fault("never", times=100)
    began = monotonic()
    answer = client(jenkins, tmp_path, login="password").start(order(), deadline=SHORT)
    assert answer.kind == "unreachable"  # no crumb came, so no build was asked for
    assert monotonic() - began < SOON


def test_a_name_that_does_not_exist_is_named(tmp_path: Path) -> None:
    server = JenkinsServer("ci", StubJenkins([]).settings(tmp_path, url="https://jenkins.invalid/"))
    answer = start(server)
    assert (answer.kind, answer.retry) == ("unreachable", True)
    assert "https://jenkins.invalid" in answer.detail


def test_no_proxy_is_taken_from_the_environment(
    jenkins: StubJenkins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert start(client(jenkins, tmp_path)).kind == "queued"


# -- TLS -----------------------------------------------------------------------------------------------------------


@contextmanager
def over_tls(authority: Authority, *hosts: str) -> Iterator[StubJenkins]:
    identity = authority.server(*hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    with StubJenkins([StubJob(name="shop-tests")], tls=context) as jenkins:
        yield jenkins


def test_a_trusted_certificate_is_accepted(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with over_tls(authority) as jenkins:
        assert start(client(jenkins, tmp_path, ca_file=authority.ca_file)).kind == "queued"


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_certificate_that_proves_nothing_gets_no_token(tmp_path: Path, wrong: str) -> None:
    authority = Authority(tmp_path / "ca")
    trusted = Authority(tmp_path / "other") if wrong == "authority" else authority
    with over_tls(authority, *(["other.example"] if wrong == "host" else [])) as jenkins:
        answer = start(client(jenkins, tmp_path, ca_file=trusted.ca_file))
        assert (answer.kind, answer.retry) == ("unreachable", True)
        assert "no trusted certificate" in answer.detail
        assert "ca_file" in answer.remedy
        assert jenkins.seen == []


def test_a_server_without_tls_gets_no_token(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path, url=jenkins.url.replace("http:", "https:"))
    answer = start(server)
    assert answer.kind == "unreachable"
    assert "does not speak TLS" in answer.detail
    assert jenkins.seen == []


def test_a_ca_file_that_holds_none_is_named(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path, url="https://127.0.0.1:1/", ca_file=secret(tmp_path / "ca", "none"))
    answer = start(server)
    assert (answer.kind, answer.retry) == ("unreachable", True)
    assert "cannot use ca_file" in answer.detail


# -- secrets -------------------------------------------------------------------------------------------------------


def test_no_secret_is_shown_even_where_the_server_sends_it_back(
    jenkins: StubJenkins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    pairs = {"token": "ZGVwbG95a2l0OmNhbmFyeS1hcGktdG9rZW4=", "password": "ZGVwbG95a2l0OmNhbmFyeS1wYXNzd29yZA=="}
    secrets = {"token": "canary-api-token", "password": "canary-password"}
    token = secret(tmp_path / "job-token", "canary-job-token")
    for login in ("token", "password"):
        server = client(jenkins, tmp_path, login=login)
        shown.append(repr(server))
        for status in (400, 401, 403, 404, 405, 409, 418, 500, 503):
            # The second one is cut where it stands, in what is shown of an answer.
            for echo in (f"{secrets[login]}, Basic {pairs[login]}", "-" * 190 + secrets[login], "canary-job-token"):
                jenkins.faults.clear()
                jenkins.fault("status", status=status, body=echo.encode(), times=10)
                shown.append(str(server.start(order(token_file=token), deadline=10)))
                shown.append(str(server.follow(1, order=order(), deadline=10)))
                try:
                    server.find(order(), deadline=10)
                except BuildServerError as error:
                    shown.append("".join(traceback.format_exception(error)))
    text = "\n".join(shown) + caplog.text
    assert "canary" not in text
    assert not any(pair in text for pair in pairs.values())
    assert "***" in text
