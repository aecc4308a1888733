"""What docs/console-login.md shows: its settings are taken, its proxies pass on the name, and only the right one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import httpx
import pytest

from deploykit.config.load import load_settings
from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.server import WebServer
from tests.support.loginworld import login_world
from tests.support.needs import needs, needs_file
from tests.support.ports import free_port, listens
from tests.support.wait import wait_until

PAGE = (Path(__file__).parents[3] / "docs" / "console-login.md").read_text()
SOCKET = "/run/deploykit/console.sock"
#: As Debian has them.
MODULES = "mpm_event authn_core authn_file authz_core authz_user auth_basic headers proxy proxy_http"
NGINX = """
{user}
daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  server {{
    listen unix:{root}/front.sock;
    auth_basic deploykit; auth_basic_user_file {root}/htpasswd;
    {snippet}
  }}
}}
"""
APACHE = """
{modules}
ServerRoot {root}
ServerName localhost
PidFile {root}/pid
ErrorLog {root}/error.log
DefaultRuntimeDir {root}
Listen 127.0.0.1:{port}
{user}
<Location />
  AuthType Basic
  AuthName deploykit
  AuthUserFile {root}/htpasswd
  Require valid-user
</Location>
{snippet}
"""


def snippet(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert SOCKET in found
    return str(found)


@contextmanager
def running(*command: str | Path) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def front(kind: str, root: Path) -> Iterator[httpx.Client]:
    """Start nginx or Apache as the page shows it, in front of `root`/console.sock; yield a client of it."""
    shown = snippet(kind).replace(SOCKET, f"{root}/console.sock")
    as_root = os.geteuid() == 0
    if kind == "nginx":
        program, conf = needs("nginx", package="nginx-light"), root / "nginx.conf"
        conf.write_text(NGINX.format(root=root, snippet=shown, user="user root;" if as_root else ""))
        command: list[str | Path] = [program, "-c", conf, "-e", root / "error.log", "-p", root]
        address: Path | tuple[str, int] = root / "front.sock"
        transport, base = httpx.HTTPTransport(uds=str(address)), "http://localhost"
    else:
        program, conf, port = needs("apache2", package="apache2"), root / "apache.conf", free_port()
        modules = needs_file("/usr/lib/apache2/modules", package="apache2-bin")
        lines = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in MODULES.split())
        user = "User www-data\nGroup www-data" if as_root else ""
        conf.write_text(APACHE.format(root=root, snippet=shown, port=port, modules=lines, user=user))
        command = [program, "-f", conf, "-DFOREGROUND"]
        address = ("127.0.0.1", port)
        transport, base = httpx.HTTPTransport(), f"http://127.0.0.1:{port}"
    with running(*command), httpx.Client(transport=transport, base_url=base, timeout=60) as client:
        wait_until(lambda: listens(address), f"{kind} to listen")
        yield client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that the workers of Apache, which are no root, can reach."""
    for directory in [tmp_path, *tmp_path.parents]:
        if directory != Path(directory.anchor) and directory.owner() == tmp_path.owner() and len(directory.parts) > 2:
            directory.chmod(directory.stat().st_mode | 0o011)
    return tmp_path


@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_a_proxy_as_the_page_shows_it_passes_on_the_name_it_checked(root: Path, kind: str) -> None:
    names = {"ann": "correct horse", "bob": "battery"}
    lines = [f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()}\n" for name, text in names.items()]
    (root / "htpasswd").write_text("".join(lines))
    (root / "htpasswd").chmod(0o644)
    listen = f"unix:{root}/console.sock"
    world = login_world(root, mode="proxy", proxies=("unix",), listen=listen, url="http://localhost")
    with WebServer(world.asker.app, SharedListener(parse_listen_address(listen), setting="[web] listen")):
        (root / "console.sock").chmod(0o666)  # instead of a group that the proxy is in
        with front(kind, root) as client:
            ann, host = ("ann", names["ann"]), {"Host": "localhost"}
            assert client.get("/", auth=ann, headers=host).text.startswith("ann *=look ")
            for spoofed in ({"X-Remote-User": "bob"}, {"X_Remote_User": "bob"}, {"X-Remote-User": "bob, ann"}):
                assert client.get("/", auth=ann, headers={**host, **spoofed}).text.startswith("ann ")
            dropped = {"Connection": "X-Remote-User", "X-Remote-User": "bob"}
            assert "bob" not in client.get("/", auth=ann, headers={**host, **dropped}).text
            assert client.get("/", auth=ann, headers={"Host": "evil.example"}).status_code == 421
            assert client.get("/", headers={**host, "X-Remote-User": "bob"}).status_code == 401


def test_the_settings_of_the_page_are_taken(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text('[broker]\naddress = "stomp://127.0.0.1:1"\n' + block)
        assert load_settings(file).web.problems() == ()
