"""A real nginx and a real Apache on a port of this machine, with a piece of configuration from `contrib/`."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import needs, needs_file
from tests.support.wait import wait_until

_MODULES = "/usr/lib/apache2/modules"
_LOADED = ("mpm_event", "authz_core", "proxy", "proxy_http", "reqtimeout")


@contextmanager
def nginx(directory: Path, port: int, snippet: str) -> Iterator[None]:
    """Run nginx with a server block that holds `snippet`."""
    program = needs("nginx", package="nginx-light")
    (directory / "temp").mkdir(parents=True)
    user = "user root;" if os.geteuid() == 0 else ""
    places = "".join(
        f"{name}_temp_path {directory}/temp/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = directory / "nginx.conf"
    file.write_text(
        f"daemon off; {user} worker_processes 1; pid {directory}/pid; error_log stderr;\n"
        f"events {{ worker_connections 64; }}\n"
        f"http {{ access_log off; {places}\n"
        f"server {{ listen 127.0.0.1:{port}; server_name hooks.example.org;\n{snippet}\n}} }}\n"
    )
    with _running([str(program), "-p", str(directory), "-c", str(file), "-e", "stderr"], directory / "log", port):
        yield


@contextmanager
def apache(directory: Path, port: int, snippet: str) -> Iterator[None]:
    """Run Apache with a virtual host that holds `snippet`."""
    program = needs("apache2", package="apache2-bin")
    needs_file(f"{_MODULES}/mod_proxy_http.so", package="apache2-bin")
    directory.mkdir(parents=True)
    modules = "".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so\n" for name in _LOADED)
    user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    file = directory / "apache.conf"
    file.write_text(
        f"{modules}{user}ServerRoot {directory}\nPidFile {directory}/pid\nDefaultRuntimeDir {directory}\n"
        f"Mutex pthread\nServerName hooks.example.org\nErrorLog /dev/stderr\nListen 127.0.0.1:{port}\n"
        f"<VirtualHost *:{port}>\nServerName hooks.example.org\n{snippet}\n</VirtualHost>\n"
    )
    with _running([str(program), "-DFOREGROUND", "-f", str(file)], directory / "log", port):
        yield


@contextmanager
def _running(argv: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, f"{argv[0]} on port {port}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
