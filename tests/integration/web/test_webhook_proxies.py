"""The pieces of configuration in `contrib/`, tried: a real nginx and a real Apache before the receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.server import WebServer
from tests.brokers.process import PortLease
from tests.support.forges import FORGES, ForgedRequest
from tests.support.proxies import apache, nginx
from tests.support.rawhttp import exchange, request_head, status_of
from tests.support.webhooks import ReceiverWorld, push_of

CONTRIB = Path(__file__).parents[3] / "contrib"
PROXIES = {"nginx": nginx, "apache": apache}


class Proxied:
    """A receiver behind a proxy at a port."""

    def __init__(self, world: ReceiverWorld, port: int) -> None:
        self.world = world
        self.port = port

    def send(self, forge: str, request: ForgedRequest, path: str = "") -> httpx.Response:
        """Send a request by way of the proxy."""
        url = f"http://127.0.0.1:{self.port}{path or f'/hook/{forge}'}"
        return httpx.post(url, headers=request.headers, content=request.body, timeout=30)


@pytest.fixture(params=sorted(PROXIES))
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxied]:
    name: str = request.param
    snippet = (CONTRIB / name / "webhook.conf").read_text(encoding="utf-8")
    assert "127.0.0.1:8471" in snippet
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[webhook] listen")
    with ReceiverWorld(tmp_path, deadline=60.0) as world, WebServer(world.app, listener):
        here = snippet.replace("127.0.0.1:8471", str(listener.address))
        lease = PortLease()
        try:
            with PROXIES[name](tmp_path / "proxy", lease.port, here):
                yield Proxied(world, lease.port)
        finally:
            lease.release()


def test_every_forge_is_received_and_every_refusal_comes_through(proxied: Proxied) -> None:
    for forge in FORGES:
        assert proxied.send(forge, push_of(forge)).status_code == 202
        wrong = proxied.send(forge, push_of(forge, secret=b"wrong:secret"))
        assert (wrong.status_code, wrong.json()["status"]) == (401, 401)
    assert len(proxied.world.refs()) == len(FORGES)
    assert proxied.send("github", push_of("github", form=True)).status_code == 202
    assert httpx.get(f"http://127.0.0.1:{proxied.port}/hook/github", timeout=60).status_code == 405
    request = push_of("github")
    packed = ForgedRequest({**request.headers, "Content-Encoding": "gzip"}, request.body)
    assert proxied.send("github", packed).status_code == 415
    assert proxied.send("github", request, "/hook/nobody").status_code == 404
    assert proxied.send("github", request, "/other").status_code == 404
    assert proxied.send("github", request, "/hook/../etc/passwd").status_code == 404


def test_long_and_chunked_bodies_behind_a_proxy(proxied: Proxied) -> None:
    request = push_of("github")
    assert proxied.send("github", ForgedRequest(request.headers, b"x" * (6 << 20))).status_code == 413
    head = request_head("/hook/github", {**request.headers, "Transfer-Encoding": "chunked"})
    body = b"".join(b"%x\r\n%s\r\n" % (1, request.body[at : at + 1]) for at in range(len(request.body)))
    assert status_of(exchange(proxied.port, [head, body, b"0\r\n\r\n"])) == 202
    assert len(proxied.world.refs()) == 1
