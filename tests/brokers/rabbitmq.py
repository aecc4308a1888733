"""A private RabbitMQ with its STOMP plugin, from Debian's rabbitmq-server package, beside any system service.

Rules: its own epmd (started by us, or Erlang would start one that listens on every interface and outlives everybody),
its own HOME and so its own Erlang cookie; users come from a definitions file; only the applications that STOMP needs
are on the plugin path, which halves the start time. There is no guest user.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from tests.brokers.server import BrokerFailed, BrokerServer
from tests.support.needs import needs, needs_file

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in /usr/sbin changes user and reads system settings
_PLUGINS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"
_WATERMARK = 0.4


class RabbitMQ(BrokerServer):
    """A private RabbitMQ; see `BrokerServer` for what it can do."""

    kind: ClassVar[str] = "rabbitmq"

    def __init__(
        self,
        *,
        login: str = "deploy",
        more_users: Mapping[str, str] | None = None,
        client_certs: bool = False,
        start_timeout: float = 120.0,
    ) -> None:
        super().__init__(login=login, more_users=more_users, client_certs=client_certs, start_timeout=start_timeout)
        self.dist_port = self._lease_port()
        self.epmd_port = self._lease_port()
        self.node = f"{self.mark.rpartition('.')[2]}@localhost"
        self._cookie = secrets.token_hex(16)
        self._epmd: subprocess.Popen[bytes] | None = None

    def set_memory_alarm(self, on: bool, *, timeout: float = 60.0) -> None:
        """Raise or clear the memory alarm, and return when the broker says so.

        While it is on RabbitMQ stops reading from connections that publish: it still answers the first frame that a
        connection sends after the alarm, then no receipt comes and nothing else changes. It is the operator's own
        lever (`rabbitmqctl set_vm_memory_high_watermark`), moved directly.
        """
        watermark = 0.0 if on else _WATERMARK
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({watermark})")
        deadline = time.monotonic() + timeout
        while ("memory" in self.evaluate("rabbit_alarm:get_alarms()")) is not on:
            if time.monotonic() > deadline:
                raise BrokerFailed(f"rabbitmq: memory alarm not {'raised' if on else 'cleared'}\n{self.log_tail()}")
            time.sleep(0.05)

    @contextlib.contextmanager
    def user(self, name: str, passcode: str, allowed: str) -> Iterator[None]:
        """Add a user that may configure, write and read what matches `allowed` alone, and take it away again."""
        call, pattern = "rabbit_auth_backend_internal:", f'<<"{allowed}">>, ' * 3
        self.evaluate(f'{call}add_user(<<"{name}">>, <<"{passcode}">>, <<"test">>)')
        self.evaluate(f'{call}set_permissions(<<"{name}">>, <<"/">>, {pattern}<<"test">>)')
        try:
            yield
        finally:
            self.evaluate(f'{call}delete_user(<<"{name}">>, <<"test">>)')

    def sync_declared(self) -> None:
        """Return when the queues and bindings that were confirmed so far are on disk.

        RabbitMQ confirms both a moment before they are: killed in between, it comes back without the queue and all
        that was confirmed into it (2 of 100 kills right after the first messages), or with a queue that nothing is
        bound to. Messages in a queue that is on disk are on disk when they are confirmed.
        """
        self.evaluate("mnesia:sync_log()")

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression inside the server and return the result as text (`rabbitmqctl eval`, fast)."""
        for attempt in range(5):
            done = self._erl_call(expression)
            said = done.stdout.decode(errors="replace").strip()
            if done.returncode == 0 and said.startswith("{ok, ") and said.endswith("}"):
                return said[5:-1]
            said = said or done.stderr.decode(errors="replace").strip()
            if "failed to connect" not in said:
                break
            time.sleep(0.2 * (attempt + 1))  # a busy node; nothing was evaluated yet
        raise BrokerFailed(f"erl_call: {said}\n{self.log_tail()}")

    def _erl_call(self, expression: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [
                str(needs("erl_call", package="erlang-base")),
                *("-address", f"127.0.0.1:{self.dist_port}", "-c", self._cookie, "-timeout", "10", "-e"),
            ],
            input=f"{expression}.\n".encode(),
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory)},
        )

    def _configure(self) -> None:
        top = self.directory
        for name in ("mnesia", "log", "plugins"):
            (top / name).mkdir()
        wanted = ["rabbitmq_stomp", *(["rabbitmq_auth_mechanism_ssl"] if self.client_certs else [])]
        for application in _with_dependencies(wanted):
            (top / "plugins" / application.name).symlink_to(application)
        cookie = top / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(self._cookie, encoding="ascii")
        cookie.chmod(0o400)  # Erlang refuses a cookie that others may read
        (top / "enabled_plugins").write_text(f"[{','.join(wanted)}].\n", encoding="ascii")
        (top / "definitions.json").write_text(json.dumps(self._definitions()), encoding="utf-8")
        (top / "rabbitmq.conf").write_text("\n".join([*self._settings(), ""]), encoding="utf-8")

    def _definitions(self) -> dict[str, object]:
        every = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        return {
            "vhosts": [{"name": "/"}],
            "users": [{"name": name, "password": word, "tags": ""} for name, word in self.users.items()],
            "permissions": [{"user": name, **every} for name in self.users],
        }

    def _settings(self) -> list[str]:
        settings = [
            "listeners.tcp = none",
            f"stomp.listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"stomp.listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {self.ca_file}",
            f"ssl_options.certfile = {self.server_identity.cert_file}",
            f"ssl_options.keyfile = {self.server_identity.key_file}",
            f"ssl_options.verify = {'verify_peer' if self.client_certs else 'verify_none'}",
            f"ssl_options.fail_if_no_peer_cert = {'true' if self.client_certs else 'false'}",
            f"load_definitions = {self.directory / 'definitions.json'}",
            f"vm_memory_high_watermark.relative = {_WATERMARK}",
            "disk_free_limit.absolute = 1MB",  # a nearly full developer's disk must not raise an alarm by itself
            "log.file = false",  # it is written seconds late; what a failed start said last would be missing
            "log.console = true",
            "log.console.level = info",
        ]
        if self.client_certs:
            settings += ["stomp.ssl_cert_login = true", "ssl_cert_login_from = common_name"]
        return settings

    def _command(self) -> list[str]:
        return [str(_SERVER), "-noinput"]

    def _environment(self) -> dict[str, str]:
        top = self.directory
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(top),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": str(top / "mnesia"),
            "RABBITMQ_LOG_BASE": str(top / "log"),
            "RABBITMQ_PID_FILE": str(top / "rabbit.pid"),
            "RABBITMQ_CONFIG_FILE": str(top / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(top / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(top / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(top / "enabled_plugins"),
            "RABBITMQ_PLUGINS_DIR": str(top / "plugins"),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",  # no dump: it takes seconds, and nobody would read it
            "RABBITMQ_ALLOW_INPUT": "1",  # the shell script then becomes the Erlang machine: our pid is the server's
            # Tests run several at once on small machines: no scheduler waits busily.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _log_files(self) -> list[Path]:
        return []  # all of it is on the console

    def _start_companions(self) -> None:
        self._epmd = self._spawn(
            [str(needs("epmd", package="erlang-base")), "-port", str(self.epmd_port), "-address", "127.0.0.1"],
            {"PATH": "/usr/bin:/bin", "HOME": str(self.directory)},
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.epmd_port), timeout=1).close()
            except OSError as error:
                if self._epmd.poll() is not None or time.monotonic() > deadline:
                    raise BrokerFailed(f"epmd did not come up\n{self.log_tail()}") from error
                time.sleep(0.01)
            else:
                return

    def _end_everything(self) -> None:
        super()._end_everything()
        if self._epmd is not None:
            self._epmd.wait(30)
            self._epmd = None


def check_installed() -> None:
    """Skip (or fail in CI) where RabbitMQ is missing, naming the package."""
    needs_file(str(_SERVER), package="rabbitmq-server")
    needs("epmd", package="erlang-base")


def _with_dependencies(wanted: list[str]) -> list[Path]:
    """Return the plugin directories of `wanted` and of all they need, read from their `.app` files."""
    found = {path.name.rpartition("-")[0]: path for path in Path("/").glob(_PLUGINS[1:] + "/*-*") if path.is_dir()}
    todo, done = ["rabbit", *wanted], dict[str, Path]()
    while todo:
        name = todo.pop()
        if name in done or name not in found:  # not found: part of Erlang itself
            continue
        done[name] = found[name]
        text = (found[name] / "ebin" / f"{name}.app").read_text(encoding="utf-8")
        if listed := re.search(r"\{\s*applications\s*,\s*\[([^\]]*)\]", text):
            todo += re.findall(r"\w+", listed.group(1))
    return list(done.values())
