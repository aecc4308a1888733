"""Access from the console's page to a real nginx: form, password, report, login at nginx, revocation."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import httpx

from deploykit.broker.server import EmbeddedBroker
from deploykit.names import NodeName
from deploykit.settings import GrantSettings, WebSettings
from deploykit.web.service import ConsoleService
from tests.support.accessworld import SHOP, AccessWorld
from tests.support.guardedservers import guarded
from tests.support.wait import wait_until


def token_of(page: str) -> dict[str, str]:
    """The hidden field of a form that shows that it is ours; without a login there is none."""
    return dict(re.findall(r'<input type="hidden" name="(csrf)" value="([^"]+)"', page)[:1])


def test_access_is_granted_and_revoked_on_a_real_nginx_from_the_page(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with (
        guarded("nginx", tmp_path / "server") as server,
        AccessWorld(tmp_path, deploykit_broker.address, {SHOP: server.settings}) as world,
    ):
        settings = attrs.evolve(
            world.desk,
            node=NodeName("console"),
            web=WebSettings(listen="127.0.0.1:0"),
            trust=attrs.evolve(
                world.desk.trust,
                grants=(
                    *world.desk.trust.grants,
                    GrantSettings(principal="ops@example.org", types=("node.queried",)),
                ),
            ),
        )
        with world.daemon(), world.agent(), ConsoleService(settings) as console:
            assert console.wait_connected(60)
            headers = {"Origin": console.url.rstrip("/")}
            client = httpx.Client(base_url=console.url, headers=headers, trust_env=False, timeout=60)
            with client:
                wait_until(lambda: "Make a password" in client.get("access").text, "a protected site is known")
                fields = {"site": "shop", "user": "alice", "span": "7d"}
                wrong = client.post("access", data={**fields, "user": "a:b", **token_of(client.get("access").text)})
                assert wrong.status_code == 422
                done = client.post("access", data={**fields, **token_of(client.get("access").text)})
                assert done.status_code == 303, done.text
                granted = client.get(done.headers["location"])
                (password,) = re.findall(r"[a-hjkmnp-z2-9]{5}(?:-[a-hjkmnp-z2-9]{5}){3}", granted.text)
                assert "no-store" in granted.headers["cache-control"]
                wait_until(lambda: server.answers("alice", password, 200), "alice is let in")
                assert server.status("alice", password + "x") == 401
                listed = wait_until_listed(client, "granted")
                assert password not in listed
                confirm = client.get("access/revoke", params={"site": "shop", "user": "alice"}).text
                revoked = client.post("access/revoke", data={"site": "shop", "user": "alice", **token_of(confirm)})
                assert revoked.status_code == 303
                wait_until(lambda: server.answers("alice", password, 401), "alice is kept out")
                wait_until(lambda: "<bdi>alice</bdi>" not in client.get("access").text, "the row is gone")
        assert password.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def wait_until_listed(client: httpx.Client, state: str) -> str:
    """Return the page once a node has reported it."""
    wait_until(lambda: state in client.get("access").text.partition('id="access"')[2].lower(), state)
    return client.get("access").text
