"""A real nginx, Apache and haproxy that ask for a name and a password from a file."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import attrs

from deploykit.settings import AccessSiteSettings
from tests.support.needs import needs, needs_file
from tests.support.ports import free_port
from tests.support.proxies import nginx
from tests.support.wait import wait_until

_MODULES = "/usr/lib/apache2/modules"
_LOADED = ("mpm_event", "authz_core", "authz_user", "auth_basic", "authn_core", "authn_file")


@attrs.frozen(kw_only=True)
class GuardedServer:
    """A server that runs.

    Args:
        settings: of the site that it serves.
        port: on 127.0.0.1.
        config: its own configuration, for tests that break it.
        pid: of its main process.
    """

    settings: AccessSiteSettings
    port: int
    config: Path
    pid: int = 0

    def status(self, user: str, password: str) -> int:
        """Ask for the page; return the status."""
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/index.html", headers={"Authorization": f"Basic {login}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def answers(self, user: str, password: str, status: int) -> bool:
        """Whether it answers so: a reload takes a moment."""
        with contextlib.suppress(OSError):
            return self.status(user, password) == status
        return False


@contextlib.contextmanager
def guarded(kind: str, root: Path, users: Path | None = None) -> Iterator[GuardedServer]:
    """Run the server of a kind.

    Args:
        root: for everything of it.
        users: its file of users, which is there; None: one of its own. Apache reads it as another user.
    """
    root.mkdir(parents=True)
    with {"nginx": _nginx, "apache": _apache, "haproxy": _haproxy}[kind](root, users) as made:
        yield made


def _page(root: Path) -> Path:
    page = root / "www"
    page.mkdir()
    (page / "index.html").write_text("hello\n")
    return page


def _users(root: Path, content: str = "") -> Path:
    file = root / "users"
    file.write_text(content)
    file.chmod(0o640)
    return file


@contextlib.contextmanager
def _nginx(root: Path, file: Path | None) -> Iterator[GuardedServer]:
    users, port, page = file or _users(root), free_port(), _page(root)
    snippet = f'root {page}; location / {{ auth_basic "stage"; auth_basic_user_file {users}; }}'
    config = root / "nginx" / "nginx.conf"
    with nginx(root / "nginx", port, snippet):
        program = needs("nginx", package="nginx-light")
        test = (str(program), "-t", "-q", "-p", str(config.parent), "-c", str(config), "-e", "stderr")
        yield GuardedServer(settings=AccessSiteSettings(file=users, test=test), port=port, config=config)


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """Make a directory that every user may read, beside pytest's: that of another run closes those to others."""
    with tempfile.TemporaryDirectory(prefix="deploykit-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def _apache(root: Path, file: Path | None) -> Iterator[GuardedServer]:
    with public_directory() as public, _apache_in(root, public, file) as made:
        yield made


@contextlib.contextmanager
def _apache_in(root: Path, public: Path, file: Path | None) -> Iterator[GuardedServer]:
    program = needs("apache2", package="apache2-bin")
    needs_file(f"{_MODULES}/mod_auth_basic.so", package="apache2-bin")
    users, port, page = file or _users(public), free_port(), _page(public)
    modules = "".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so\n" for name in _LOADED)
    root_user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    if root_user:
        users.chmod(0o644)
        page.chmod(0o755)
    config = root / "apache.conf"
    config.write_text(
        f"{modules}{root_user}ServerRoot {root}\nPidFile {root}/pid\nDefaultRuntimeDir {root}\nMutex pthread\n"
        f"ServerName stage.example.org\nErrorLog {root}/log\nListen 127.0.0.1:{port}\nDocumentRoot {page}\n"
        f'<Location "/">\nAuthType Basic\nAuthName stage\nAuthUserFile {users}\nRequire valid-user\n</Location>\n'
    )
    with _running([str(program), "-DFOREGROUND", "-f", str(config)], root):
        settings = AccessSiteSettings(file=users, test=(str(program), "-t", "-f", str(config)))
        made = GuardedServer(settings=settings, port=port, config=config)
        wait_until(lambda: made.answers("nobody", "x", 401), "apache")
        yield made


@contextlib.contextmanager
def _haproxy(root: Path, file: Path | None) -> Iterator[GuardedServer]:
    program = needs("haproxy", package="haproxy")
    users, port = file or _users(root, "# who may see the stage\nuserlist stage\n"), free_port()
    config = root / "haproxy.cfg"
    config.write_text(
        f"global\n\tmaxconn 50\n\tstats socket {root}/admin.sock mode 600 level admin expose-fd listeners\n"
        "defaults\n\tmode http\n\ttimeout connect 5s\n\ttimeout client 5s\n\ttimeout server 5s\n"
        f"frontend stage\n\tbind 127.0.0.1:{port}\n\thttp-request auth unless {{ http_auth(stage) }}\n"
        '\thttp-request return status 200 content-type text/plain string "hello"\n'
    )
    files = ["-f", str(config), "-f", str(users)]
    master = root / "m.sock"
    with _running([str(program), "-W", "-db", "-S", str(master), *files, "-p", f"{root}/pid"], root) as process:
        reload = root / "reload"
        reload.write_text(f"#!/bin/sh\nexec kill -USR2 {process.pid}\n")
        reload.chmod(0o755)
        settings = AccessSiteSettings(
            file=users,
            kind="haproxy",
            userlist="stage",
            test=(str(program), "-c", "-q", *files),
            reload=(str(reload),),
            master=master,
        )
        made = GuardedServer(settings=settings, port=port, config=config, pid=process.pid)
        wait_until(lambda: made.answers("nobody", "x", 401), "haproxy")
        yield made


@contextlib.contextmanager
def _running(argv: list[str], root: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (root / "output").open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)  # one that a test has ended is a zombie until it is waited for
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


__all__ = ["GuardedServer", "guarded", "public_directory"]
