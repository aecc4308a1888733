"""Whatever an HTTP server or a proxy answers: one error of ours, in words, and the mirror holds what it held."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import DeploykitError, OriginError
from deploykit.git.transport.address import parse_origin_url
from deploykit.git.transport.http import HttpLink
from deploykit.git.transport.protocol import OriginSession
from deploykit.git.transport.remote import open_link, run_credential_helper
from deploykit.mirror import Mirror
from deploykit.settings import MirrorSettings
from deploykit.system.deadline import Deadline
from tests.support.gitserver import FakeGitServer, packet
from tests.support.httpanswers import answering, http_answer
from tests.support.origins import GitRepo, http_backend
from tests.support.ports import free_port
from tests.support.proxies import apache

OK = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
GZIPPED = gzip.compress(b"0000", mtime=0)
LISTING = "application/x-git-upload-pack-advertisement"
SETTINGS = MirrorSettings(allow_http=True)
HELLO = packet(b"# service=git-upload-pack\n") + b"0000"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


def error_of(*answers: bytes) -> DeploykitError:
    """Return what listing the refs of an origin that answers so ends with."""
    with answering(*answers) as server:
        limit = Deadline(60, stall=60, what="listing")
        session = OriginSession(open_link(parse_origin_url(server.url, allow_http=True), SETTINGS, limit), prefixes=[])
        try:
            with pytest.raises(DeploykitError) as caught:
                session.list()
        finally:
            session.close()
    assert str(caught.value).isprintable()
    return caught.value


@pytest.fixture
def mirrored(tmp_path: Path) -> Iterator[Path]:
    """A mirror of three refs, at a path."""
    repo = GitRepo.make(tmp_path / "site.git")
    first = repo.commit()
    repo.git("branch", "other", first)
    repo.git("tag", "v1", first)
    with Mirror.open(tmp_path / "m.git", str(repo.path)) as mirror:
        mirror.fetch()
        assert len(mirror.refs) == 3
    yield tmp_path / "m.git"
    with Mirror.open(tmp_path / "m.git", str(repo.path)) as mirror:
        assert len(mirror.refs) == 3


@pytest.mark.parametrize(
    "body",
    [b"0000", b"", b"0004", packet(b"hello\n") + b"0000", HELLO + packet(b"hello\n") + b"0000",
     HELLO + packet(b"hello world\n") + b"0000", HELLO + packet(b"version 2\n") + b"0000" + b"0000"],
)  # fmt: skip
def test_an_answer_that_is_not_gits_deletes_nothing(body: bytes, mirrored: Path) -> None:
    with answering(http_answer(body=body, Content_Type=LISTING)) as server:
        mirror = Mirror.open(mirrored, server.url, SETTINGS)
        with mirror, pytest.raises(OriginError):
            mirror.fetch()


def test_an_empty_list_deletes_nothing_unless_somebody_says_so(mirrored: Path) -> None:
    with answering(http_answer(body=HELLO + b"0000", Content_Type=LISTING)) as server:
        mirror = Mirror.open(mirrored, server.url, SETTINGS)
        with mirror:
            result = mirror.fetch()
    assert result.changes == ()
    assert {refusal.reason for refusal in result.refused} == {"the origin has lost 3 of 3 refs, more than 50 %"}
    with FakeGitServer(refs={}) as git, Mirror.open(mirrored, git.url) as mirror:
        assert mirror.fetch().changes == ()


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("http://[::1/x/info/refs?service=git-upload-pack", "redirects to what is no address"),
        ("http://[x]/x/info/refs?service=git-upload-pack", "redirects to"),
        ("http://host:port/x/info/refs?service=git-upload-pack", "not allowed"),
        ("http://-x/y/info/refs?service=git-upload-pack", "not allowed"),
        ("file:///x/info/refs?service=git-upload-pack", "another scheme|not allowed"),
        ("ext::sh/info/refs?service=git-upload-pack", "not allowed|redirects to"),
        ("//[/info/refs?service=git-upload-pack", "redirects to what is no address"),
        ("/\u00e9/\x7f \x9f", "redirects to"),
        ("", "does not say where to"),
        ("?", "redirects"),
        ("/site.git/info/refs?service=git-upload-pack", "in circles"),
    ],
)
def test_a_broken_location_is_one_clear_line(location: str, match: str) -> None:
    error = error_of(http_answer("301 Moved", Location=location))
    assert isinstance(error, OriginError)
    assert re.search(match, str(error)), str(error)


def test_a_location_that_is_not_ascii_is_followed() -> None:
    moved = http_answer("302 Found", Location="/n\u00e9w.git/info/refs?service=git-upload-pack")
    assert "HTTP 404" in str(error_of(moved, http_answer("404 Not Found")))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (http_answer("429 Too Many Requests", Retry_After="30"), r"too many requests .*HTTP 429.*asks for 30 s"),
        (http_answer("401 No"), "wants a login.*credentials_file"),
        (http_answer("404 No"), "no such repository"),
        (http_answer("503 Busy", Retry_After="\u00b2"), r"fails \(HTTP 503\).*try again later"),
        (http_answer("204 Nothing"), "HTTP 204"),
        (http_answer(body=GZIPPED, Content_Type=LISTING, Content_Encoding="gzip"), "Content-Encoding: gzip"),
        (http_answer(body=GZIPPED, Content_Type=LISTING), "sent compressed data, which we did not ask"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: gzip, chunked"),
        (http_answer(body=bytes(range(1, 99)), Content_Type=LISTING), "bytes that are no text"),
        (http_answer(body=b"<html>no", Content_Type=LISTING), "does not speak git: '<html>no'"),
        (http_answer(body=b"<html>", Content_Type="text/html"), "'text/html'"),
        (f"{OK}Content-Length: x\r\n\r\n0".encode(), "closed the connection"),
        (f"{OK}Content-Length: -1\r\n\r\n".encode(), "closed the connection"),
        (f"{OK}Content-Length: 9\r\n\r\n00".encode(), "closed|not HTTP"),
        (f"{OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n".encode(), "not HTTP|closed"),
        (f"{OK}Transfer-Encoding: chunked\r\n\r\n-5\r\n".encode(), "not HTTP|closed"),
        (b"", "closed without an answer"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 999999 x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\xff\xfe: \x00\r\n broken\r\n\r\n", "not a smart git server"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_one_clear_line(answer: bytes, match: str) -> None:
    error = error_of(answer)
    assert isinstance(error, OriginError)
    assert re.search(match, str(error)), str(error)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 301 x\r\nLocation: /"]),
    st.binary(max_size=60),
    st.sampled_from([b"", b"\r\n\r\n", b"/info/refs?service=git-upload-pack\r\n\r\n"]),
)
def test_any_bytes_end_in_an_error_of_ours(begin: bytes, middle: bytes, end: bytes) -> None:
    error_of(begin + middle + end, b"")


class TestProxies:
    """`tests/unit/git/transport/test_proxy.py` has which one is taken."""

    @pytest.mark.parametrize("scheme", ["https", "http"])
    @pytest.mark.parametrize(
        ("status", "match"),
        [("407 Login", "wants a login.*USER:PASSWORD@"), ("502 Bad Gateway", "HTTP 502"), ("403 No", "HTTP 403")],
    )
    def test_a_proxy_that_refuses_is_named(
        self, scheme: str, status: str, match: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with answering(http_answer(status)) as proxy:
            monkeypatch.setenv(f"{scheme}_proxy", f"me:canary-7@127.0.0.1:{proxy.port}")
            with pytest.raises(OriginError, match=match) as caught:
                Mirror.open(tmp_path / "m.git", f"{scheme}://git.example.net/x.git", SETTINGS).fetch()
            assert "canary" not in str(caught.value)
            if scheme == "https" or "403" not in status:
                assert f"127.0.0.1:{proxy.port} (from {scheme}_proxy)" in str(caught.value)
            line = "CONNECT git.example.net:443" if scheme == "https" else "GET http://git.example.net/x.git/info/refs"
            assert proxy.heads[0].startswith(line)
            assert "Proxy-Authorization: Basic " in proxy.heads[0]

    def test_a_proxy_that_is_not_there_is_named_and_the_origin_is_not_blamed(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with answering(b"") as gone:
            pass
        monkeypatch.setenv("all_proxy", f"127.0.0.1:{gone.port}")
        with pytest.raises(OriginError, match=rf"proxy 127\.0\.0\.1:{gone.port} \(from all_proxy\): .*refused"):
            Mirror.open(tmp_path / "m.git", "https://git.example.net/x.git").fetch()

    def test_a_real_proxy_opens_the_way_for_its_login_alone(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        GitRepo.make(tmp_path / "served" / "site.git").commit()
        with http_backend(tmp_path / "served") as server:
            snippet = (
                f"ProxyRequests On\nAllowCONNECT {server.port}\n<Proxy *>\nAuthType Basic\nAuthName x\n"
                "AuthBasicProvider anon\nAnonymous me\nAnonymous_MustGiveEmail Off\nRequire valid-user\n</Proxy>"
            )
            modules = ("proxy_connect", "authn_core", "authn_anon", "authz_user", "auth_basic")
            port = free_port()
            mine = MirrorSettings(ca_file=server.ca_file, credentials_file=server.credentials)
            with apache(tmp_path / "proxy", port, snippet, modules):
                monkeypatch.setenv("https_proxy", f"me:canary-7@127.0.0.1:{port}")
                assert Mirror.open(tmp_path / "m.git", server.url("site.git"), mine).fetch().changes
                monkeypatch.setenv("https_proxy", f"you:canary-7@127.0.0.1:{port}")
                with pytest.raises(OriginError, match="wants a login, or refuses ours") as caught:
                    Mirror.open(tmp_path / "n.git", server.url("site.git"), mine).fetch()
                assert "canary" not in str(caught.value)

    def test_what_no_proxy_lists_is_reached_directly(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        GitRepo.make(tmp_path / "served" / "site.git").commit()
        with http_backend(tmp_path / "served") as server, answering(b"") as proxy:
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", "localhost")
            mine = MirrorSettings(ca_file=server.ca_file, credentials_file=server.credentials)
            assert Mirror.open(tmp_path / "m.git", server.url("site.git"), mine).fetch().changes
            assert proxy.heads == []


def test_a_login_of_one_host_is_not_sent_to_another(tmp_path: Path) -> None:
    """The cache of logins has host and port in its key."""
    with answering(http_answer("404 x")) as other:
        with answering(http_answer("302 x", Location=f"{other.url}/info/refs?service=git-upload-pack")) as first:
            file = tmp_path / "credentials"
            file.write_text(f"http://me:canary-7@127.0.0.1:{first.port}\n")
            file.chmod(0o600)
            mine = MirrorSettings(allow_http=True, credentials_file=file)
            limit = Deadline(60, stall=60, what="listing")
            url = parse_origin_url(first.url, allow_http=True)
            link = HttpLink(url, mine, limit, run_helper=run_credential_helper)
            with pytest.raises(OriginError, match="HTTP 404"):
                link.open(b"")
            link.close()
        assert "Authorization: Basic" in first.heads[0]
        assert "Authorization" not in other.heads[0]
