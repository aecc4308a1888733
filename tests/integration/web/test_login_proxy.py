"""The login behind a real nginx: no header of a browser makes it somebody else, and no request hides in another."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import bcrypt
import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.server import WebServer
from tests.support.loginworld import login_world
from tests.support.needs import needs
from tests.support.ports import listens
from tests.support.wait import wait_until

ANN = ("ann", "correct horse")
BOB = ("bob", "battery")
CONF = """
{user}
daemon off;
pid {root}/pid;
error_log {root}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  upstream console {{ server {upstream}; keepalive 4; }}
  server {{
    listen unix:{root}/nginx.sock;
    auth_basic deploykit;
    auth_basic_user_file {root}/htpasswd;
    location / {{
      proxy_pass http://console;
      proxy_bind 127.0.0.2;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host localhost;
      proxy_set_header X-Remote-User $remote_user;
    }}
  }}
}}
"""


@attrs.frozen(kw_only=True)
class Behind:
    """A console behind nginx. `served` has who every request that reached a view was, with its path."""

    nginx: Path
    direct: int
    served: list[tuple[str, str]]

    def raw(self, data: bytes, *, through: bool = True) -> bytes:
        """Return all that is answered to bytes: a whole answer, and what follows it until the connection is idle."""
        kind = socket.AF_UNIX if through else socket.AF_INET
        with closing(socket.socket(kind)) as connection:
            connection.settimeout(60)
            connection.connect(str(self.nginx) if through else ("127.0.0.1", self.direct))
            connection.sendall(data)
            got = b""
            try:
                while piece := connection.recv(65536):
                    got += piece
                    if is_whole(got):
                        connection.settimeout(0.4)  # more must not come, or is not looked at
            except (TimeoutError, ConnectionError):
                assert is_whole(got), got  # then kept open, or refused hard: what came is what counts
        return got

    def client(self) -> httpx.Client:
        """Return a client that is ann at the proxy."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.nginx)), base_url="http://localhost", auth=ANN, timeout=60
        )


def is_whole(answer: bytes) -> bool:
    """Whether bytes begin with a whole answer, as far as its own lengths say."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")[1:]
    if b"transfer-encoding: chunked" in fields:
        return body.endswith(b"0\r\n\r\n")
    length = next((int(field.partition(b":")[2]) for field in fields if field.startswith(b"content-length:")), 0)
    return bool(blank) and len(body) >= length


def watched(app: ASGIApp, served: list[tuple[str, str]]) -> ASGIApp:
    """Return the application, whose answered requests are written down with their viewer: before who asks hears it."""

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["state"]["viewer"].name:
                served.append((scope["state"]["viewer"].name, scope["path"]))
            await send(message)

        await app(scope, receive, noting)

    return watching


@pytest.fixture(scope="module")
def nginx_and_console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    root = tmp_path_factory.mktemp("nginx")
    # As root its worker would be another user, who may not read what tests write.
    user = "user root;" if os.geteuid() == 0 else ""
    nginx = needs("nginx", package="nginx-light")
    world = login_world(root, mode="proxy", proxies=("127.0.0.2",))
    served: list[tuple[str, str]] = []
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
    with WebServer(watched(world.asker.app, served), listener) as server:
        lines = [f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()}\n" for name, text in (ANN, BOB)]
        (root / "htpasswd").write_text("".join(lines))
        port = int(server.url.rstrip("/").rpartition(":")[2])
        (root / "nginx.conf").write_text(CONF.format(root=root, user=user, upstream=f"127.0.0.1:{port}"))
        process = subprocess.Popen([nginx, "-c", root / "nginx.conf", "-e", root / "error.log", "-p", root])
        try:
            wait_until(lambda: listens(root / "nginx.sock"), "nginx to listen")
            yield Behind(nginx=root / "nginx.sock", direct=port, served=served)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def behind(nginx_and_console: Behind) -> Behind:
    nginx_and_console.served.clear()
    return nginx_and_console


def test_whoever_the_proxy_has_logged_in_is_who_they_are(behind: Behind) -> None:
    with behind.client() as client:
        assert client.get("/").text.startswith("ann *=look ")
        assert client.get("/", auth=BOB).text.startswith("bob ")
        assert client.get("/", auth=("ann", "wrong")).status_code == 401
        wait_until(lambda: [name for name, _ in behind.served] == ["ann", "bob"], "both to be served")


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Remote-User", "bob")],
        [("x-remote-user", "bob"), ("X-REMOTE-USER", "bob")],
        [("X_Remote_User", "bob")],
        [("X-Remote-User", "bob"), ("Connection", "X-Remote-User")],
        [("Connection", "close, X-Remote-User")],
        [("X-Forwarded-User", "bob"), ("X-Forwarded-For", "127.0.0.2"), ("Forwarded", "for=127.0.0.2")],
        [("X-Remote-User\t", "bob")],
    ],
)
def test_a_browser_cannot_name_itself_past_the_proxy(behind: Behind, headers: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    got = behind.raw(f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {basic(ANN)}\r\n{lines}\r\n".encode())
    assert b"bob" not in got
    assert got.split()[1] == (b"200" if b"ann *=look" in got else b"400")
    assert all(name == "ann" for name, _ in behind.served)


@pytest.mark.parametrize(
    "header", ["X-Remote-User: bob", "x-remote-user:bob", "X-Remote-User: ann\r\nX-Remote-User: bob"]
)
def test_a_header_that_comes_past_the_proxy_is_refused(behind: Behind, header: str) -> None:
    got = behind.raw(f"GET / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode(), through=False)
    assert got.startswith(b"HTTP/1.1 403")
    assert behind.served == []


HIDDEN = b"GET /sites/hidden HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: bob\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        [b"Content-Length: %d" % (5 + len(HIDDEN)), b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 4"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding:\x0bchunked"],
        [b"Content-Length: 5", b"Content-Length: %d" % (5 + len(HIDDEN))],
        [b"Content-Length: +5"],
        [b"Content-Length: 0", b"X: y\nContent-Length: 5"],
    ],
)
@pytest.mark.parametrize("through", [True, False])
def test_no_request_hides_in_the_body_of_another(behind: Behind, framing: list[bytes], through: bool) -> None:
    head = [b"POST /change HTTP/1.1", b"Host: localhost", b"Sec-Fetch-Site: same-origin", *framing]
    if through:
        head.insert(2, b"Authorization: Basic " + basic(ANN).encode())
    behind.raw(b"\r\n".join(head) + b"\r\n\r\n0\r\n\r\n" + HIDDEN, through=through)
    with behind.client() as client:  # on nginx's kept connection, if one was poisoned
        assert client.get("/").text.startswith("ann ")
    assert ("bob", "/sites/hidden") not in behind.served
    assert {name for name, _ in behind.served} <= {"ann"}


@pytest.mark.parametrize(
    "target",
    [
        "/static/../sites/shop",
        "/static/..%2fsites/shop",
        "/static/%2e%2e/sites/shop",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/%00",
        "//sites/shop",
        "http://localhost/sites/shop",
        "/login/../sites/shop",
        "/login%2f..%2fsites/shop",
        "/sites/shop;/static/",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD", "POST"])
def test_no_path_goes_past_the_login(behind: Behind, target: str, method: str) -> None:
    got = behind.raw(
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), through=False
    )
    status = int(got.split()[1])
    assert 400 <= status < 500
    assert b"root:" not in got
    assert b"*=look" not in got
    assert behind.served == []


def basic(login: tuple[str, str]) -> str:
    """Return a name and a password as `Basic` has them."""
    return httpx.BasicAuth(*login)._auth_header.partition(" ")[2]
