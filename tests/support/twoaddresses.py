"""A broker name with two addresses of which only the second is a broker, for real: hosts file, firewall and all.

`trial(...)` runs this module in a network and mount namespace of its own, where the name `twin` has the addresses
`FIRST` and `SECOND` in this order. The broker listens behind the second. The first drops SYNs (`drop`), accepts and
stays mute (`mute`), or does a TLS handshake first (`mute-after-tls`).
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import attrs

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed
from deploykit.bus.inspection import connection_of
from deploykit.operations.doctor import examine
from deploykit.settings import BusSettings
from tests.brokers.activemq import ActiveMQ
from tests.brokers.certs import LOOPBACK, Authority
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.bus import Events, text
from tests.support.needs import missing, needs

NAME, FIRST, SECOND = "twin", "10.99.0.1", "10.99.0.2"
_DROP = f"add rule ip twin inward ip daddr {FIRST} tcp flags syn drop"
_RULES = f"""
add table ip twin
add chain ip twin inward {{ type filter hook input priority 0; }}
add chain ip twin outward {{ type nat hook output priority -100; }}
add rule ip twin outward ip daddr {SECOND} dnat to 127.0.0.1
"""


@attrs.frozen
class Outcome:
    """What a bus did: seconds until the first connection, failures, the addresses that were passed over on the way to
    the first and to the second connection, and what `doctor` said of it."""

    seconds: float
    failures: list[str]
    passed_over: list[str]
    doctor: list[str]


def trial(broker: str, fault: str, *, tls: bool, timeout: float = 10.0) -> Outcome:
    """Run one trial. `broker` is `embedded`, `rabbitmq` or `activemq`."""
    unshare, sh = needs("unshare", package="util-linux"), needs("sh", package="dash")
    needs("nft", package="nftables")
    needs("ip", package="iproute2")
    words = [sys.executable, "-m", "tests.support.twoaddresses", broker, fault, "tls" if tls else "plain", str(timeout)]
    with tempfile.TemporaryDirectory() as directory:
        hosts = Path(directory) / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{FIRST} {NAME}\n{SECOND} {NAME}\n")
        (Path(directory) / "rules").write_text(_RULES)
        script = f'mount --bind {hosts} /etc/hosts && ip link set lo up && nft -f {directory}/rules && exec "$@"'
        script = f"ip address add {FIRST}/32 dev lo && ip address add {SECOND}/32 dev lo && {script}"
        made = [str(unshare), "--net", "--mount", str(sh), "-c", script, "trial", *words]
        done = subprocess.run(made, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 1 and "Operation not permitted" in done.stderr:
        missing(f"the right to make a network namespace ({done.stderr.strip()})")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return Outcome(**said)


def _main(kind: str, fault: str, transport: str, timeout: str) -> None:
    found = socket.getaddrinfo(NAME, 1, type=socket.SOCK_STREAM)
    assert [address[0] for *_, address in found] == [FIRST, SECOND]
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, directory)
        tls = transport == "tls"
        settings, authority, port = _broker(kind, tls, directory, stack)
        settings = attrs.evolve(settings, connect_timeout=float(timeout), backoff_max=0.5)
        if fault == "drop":
            subprocess.run([str(needs("nft", package="nftables")), _DROP], check=True)
        else:
            stack.enter_context(_mute(port, authority if fault == "mute-after-tls" else None))
        events = Events()
        began = time.monotonic()
        with Bus(settings, on_event=events) as bus:
            events.wait(Connected, timeout=60)
            seconds = time.monotonic() - began
            passed_over = []
            for count in (1, 2):
                events.wait(Connected, count, timeout=60)
                bus.publish("/queue/q", text("x"))
                connection = connection_of(bus)
                assert connection is not None
                passed_over.append(connection.passed_over)
                if count == 1:
                    bus._supervisor.reconnect("a trial")
        told = [str(finding) for finding in examine(settings)]
        outcome = Outcome(seconds, [e.problem for e in events.of(ConnectFailed)], passed_over, told)
    print(json.dumps(attrs.asdict(outcome)))


def _broker(kind: str, tls: bool, directory: Path, stack: ExitStack) -> tuple[BusSettings, Authority, int]:
    if kind == "embedded":
        authority = Authority(directory)
        identity, context = authority.server(NAME), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert_file, identity.key_file)
        embedded = stack.enter_context(EmbeddedBroker(users={"ada": "s3cret"}, tls=context if tls else None))
        address = f"{'stomp+ssl' if tls else 'stomp'}://ada:s3cret@{NAME}:{embedded.port}"
        return BusSettings(address=address, tls_ca=authority.ca_file), authority, embedded.port
    real = RabbitMQ() if kind == "rabbitmq" else ActiveMQ()
    real.server_identity = real.authority.server(NAME, *LOOPBACK)
    stack.enter_context(real)
    address = (real.tls_address if tls else real.address).replace("127.0.0.1", NAME)
    return BusSettings(address=address, tls_ca=real.ca_file), real.authority, real.tls_port if tls else real.port


def _mute(port: int, authority: Authority | None) -> AbstractContextManager[object]:
    """Accept at the first address, do a TLS handshake where there is an authority, and say nothing."""
    context: ssl.SSLContext | None = None
    if authority is not None:
        identity, context = authority.server(NAME, name="mute"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert_file, identity.key_file)
    listener = socket.create_server((FIRST, port))
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                sock = listener.accept()[0]
                kept.append(context.wrap_socket(sock, server_side=True) if context else sock)
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return listener


if __name__ == "__main__":
    _main(*sys.argv[1:])
