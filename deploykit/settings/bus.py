"""How to reach the brokers."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.settings.credentials import hide_credentials


@attrs.frozen(kw_only=True, slots=True)
class BusSettings:
    """How to reach the brokers, and how patient to be. What the address says of these things wins.

    Args:
        address: `stomp://host:port`, `stomp+ssl://…`, or `failover:(a,b)?randomize=false`.
        login, passcode: used for every broker whose address holds none of its own.
        client_id: who we are to ActiveMQ, which keeps durable subscriptions by it; unique among all connections.
        versions: STOMP versions to offer.
        tls_ca: file with the certificates to trust; the system's when absent.
        tls_cert, tls_key: the client certificate, where the broker asks for one.
        tls_verify: check the broker's certificate and name. Off only for a test.
        heartbeat: seconds between beats, asked for in both directions; 0 turns them off.
        connect_timeout: for one attempt, from dialling to CONNECTED.
        publish_timeout: until a message must be confirmed, where the caller does not say.
        backoff_initial, backoff_max: ceiling of the first and of every pause between two rounds of attempts.
        stall_timeout: no receipt for so long while some are owed: the connection is given up.
        window, window_bytes: most messages that may wait for their receipts; who publishes more waits.
        in_flight: most of them that are written to the broker and not yet confirmed.
        max_frame: largest body taken; a larger one goes to the dead letters unread.
        dead_letter: where messages go that were given up.
        keepalive, keepalive_every: destinations that every bus sends an empty line to, and how often in seconds.
    """

    address: str = attrs.field(default="stomp://127.0.0.1:61613", repr=hide_credentials)
    login: str = attrs.field(default="", repr=False)
    passcode: str = attrs.field(default="", repr=False)
    client_id: str = ""
    vhost: str = "/"
    versions: tuple[str, ...] = ("1.2", "1.1", "1.0")
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_verify: bool = True
    heartbeat: float = 10.0
    connect_timeout: float = 10.0
    publish_timeout: float = 30.0
    backoff_initial: float = 0.1
    backoff_max: float = 10.0
    stall_timeout: float = 60.0
    window: int = 5000
    in_flight: int = 256
    window_bytes: int = 32 * 1024 * 1024
    max_frame: int = 4 * 1024 * 1024
    dead_letter: str = "/queue/deploykit.dead-letter"
    keepalive: tuple[str, ...] = ()
    keepalive_every: float = 60.0
