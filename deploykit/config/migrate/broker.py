"""How the original's programs reached the brokers -> `[broker]`.

Three forms: `stompconnector` (the map of the Ruby gem), `rserver` with `stomp-options`, and the hosts that keepalive
names by number. Times are seconds; in `stomp-options` milliseconds where seconds make no sense. The gem ignored options
whose capitals it did not know; they count here, because they were meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

from deploykit.config.migrate.model import MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.oldtable import OldTable, kind_of
from deploykit.errors import AddressError
from deploykit.settings.address import Broker, parse_address

ADDRESS: Final[Place] = ("broker", "address")
#: Name of the file that holds the passcode.
PASSCODE_NAME: Final = "passcode"

#: Option of the gem, as in `stomp-options`; as in `stompconnector`; its new key; how it changes, or why it is gone.
_OPTIONS: Final = (
    ("initialReconnectDelay", "initial_reconnect_delay", "broker.backoff_initial", ""),
    ("maxReconnectDelay", "max_reconnect_delay", "broker.backoff_max", ""),
    ("randomize", "randomize", "broker.address", "an option of the address"),
    ("timeout", "connect_timeout", "broker.connect_timeout", "-1 is gone: an attempt to connect always ends"),
    ("useExponentialBackOff", "use_exponential_back_off", "", "pauses always grow, with jitter"),
    ("backOffMultiplier", "back_off_multiplier", "", "pauses double, up to broker.backoff_max"),
    ("maxReconnectAttempts", "max_reconnect_attempts", "", "it goes on trying until it is ended"),
    ("backup", "backup", "", "there is one connection at a time"),
    ("", "reliable", "", "the connection is always made again"),
    ("", "connread_timeout", "", "heart-beats find a dead connection (broker.heartbeat)"),
    ("", "parse_timeout", "", "heart-beats find a dead connection (broker.heartbeat)"),
    ("", "start_timeout", "", "an attempt to connect always ends (broker.connect_timeout)"),
    ("", "logger", "", "what is logged is in [log]"),
    ("", "dmh", "", "all addresses of a name are tried"),
)
_VERSIONS: Final = "the newest of 1.2, 1.1 and 1.0 that the broker speaks is used (broker.versions)"

CONNECTOR_ROWS: Final = (
    Row(old="stompconnector.hosts[].host", new="broker.address"),
    Row(old="stompconnector.hosts[].port", new="broker.address"),
    Row(old="stompconnector.hosts[].ssl", new="broker.address", note="`stomp+ssl://`; the certificate is checked now"),
    Row(old="stompconnector.hosts[].login", new="broker.login"),
    Row(old="stompconnector.hosts[].passcode", new="broker.passcode_file", note="a file of its own, mode 0600"),
    Row(old="stompconnector.connect_headers.host", new="broker.vhost"),
    Row(old="stompconnector.connect_headers.heart-beat", new="broker.heartbeat", note="seconds, was milliseconds"),
    Row(old="stompconnector.connect_headers.client-id", new="broker.client_id"),
    Row(old="stompconnector.connect_headers.accept-version", note=_VERSIONS),
    *(Row(old=f"stompconnector.{gem}", new=new, note=note) for _, gem, new, note in _OPTIONS),
)
_OPTION_ROWS: Final = tuple(
    Row(old=f"stomp-options.{name}", new=new, note=note) for name, _, new, note in _OPTIONS if name
)
RSERVER_ROWS: Final = (
    Row(old="rserver", new="broker.address", note="login: `broker.login`; passcode: a file of its own"),
    *_OPTION_ROWS,
)
SERVER_ROWS: Final = (
    Row(old="stompserver1", new="broker.address", note="also `stompserver2`"),
    Row(old="stompport1", new="broker.address", note="also `stompport2`"),
    *_OPTION_ROWS,
)

_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,6})?\Z", re.ASCII).match


def put_broker(table: OldTable) -> None:
    """Take `stompconnector`, or `rserver` and `stomp-options`, and fill `[broker]`."""
    connector = table.table("stompconnector")
    if connector is not None:
        _put_connector(connector)
    rserver = table.text("rserver")
    if rserver is None:
        put_options(table, None)
        return
    # A passcode may have a ? in it; what stands before the last @ belongs to the brokers.
    logins, at, rest = rserver.rpartition("@")
    base, _, query = rest.partition("?")
    base = logins.replace("?", "%3F") + at + base
    randomize = put_options(table, query)
    try:
        brokers = parse_address(base).brokers
    except AddressError as error:
        table.lose_error("rserver", error)
        return
    put_brokers(table, "rserver", brokers, randomize)


def put_brokers(table: OldTable, key: str, brokers: Sequence[Broker], randomize: bool | None = None) -> None:
    """Fill address, login and passcode from what a key names.

    Where the brokers have different logins, these stay in the address, which then holds a secret.
    """
    logins = {(broker.login, broker.passcode) for broker in brokers}
    apart = len(logins) == 1
    urls = [(str(b) if apart or not b.login else _with_login(b)) for b in brokers]
    address = urls[0] if len(urls) == 1 else f"failover:({','.join(urls)})"
    if randomize is not None and len(urls) > 1:
        address += f"?randomize={str(randomize).lower()}"
    try:
        parse_address(address)
    except AddressError as error:
        table.lose_error(key, error)
        return
    before = table.draft.values.get(ADDRESS)
    if isinstance(before, str) and parse_address(before).brokers == parse_address(address).brokers:
        # The same brokers: an option that one of the files leaves out is no other word.
        order = parse_address(before).randomize
        if order is None:
            table.draft.values[ADDRESS] = address
        elif randomize not in (None, order) and len(urls) > 1:
            table.draft.lose(table.file, table.full(f"{key}.randomize"), "another file says otherwise, and came first")
        address = address if order is None else before
    if table.draft.values.get(ADDRESS, address) != address:
        table.put(key, ADDRESS, address)  # lost; and so are its login and passcode, which are not for other brokers
        return
    if not apart:
        table.draft.warn("broker.address holds passcodes, because the brokers have different logins: mode 0600")
    table.put(key, ADDRESS, address)
    login, passcode = next(iter(logins))
    if apart and login:
        table.put(key, ("broker", "login"), login)
    if apart and passcode:
        table.put_secret(key, ("broker", "passcode_file"), PASSCODE_NAME, passcode)


def _with_login(broker: Broker) -> str:
    scheme, _, rest = str(broker).partition("://")
    login = quote(broker.login, safe="") + (f":{quote(broker.passcode, safe='')}" if broker.passcode else "")
    return f"{scheme}://{login}@{rest}"


# -- the map of the gem ------------------------------------------------------------------------------------------------


def _put_connector(table: OldTable) -> None:
    hosts = [(f"hosts[{at}]", host, _host(host)) for at, host in enumerate(table.listed("hosts"))]
    brokers = [broker for _, _, broker in hosts if broker is not None]
    randomize = table.boolean("randomize")
    for name, host, broker in hosts:
        if broker is not None and broker.tls != brokers[0].tls:
            table.draft.lose(table.file, table.full(name), "with and without TLS in one list: use it for all, or none")
        host.finish()
    brokers = [broker for broker in brokers if broker.tls == brokers[0].tls]
    if brokers:
        put_brokers(table, "hosts", brokers, randomize)
        if brokers[0].tls:
            table.draft.warn("the broker's certificate is checked now: name what signed it in broker.tls_ca")
    if headers := table.table("connect_headers"):
        _put_headers(headers)
    for _, gem, new, _ in _OPTIONS:
        if new and gem != "randomize" and table.has(gem):
            _put_seconds(table.file, table.draft, table.full(gem), new, table.take(gem))
    table.finish()


def _host(table: OldTable) -> Broker | None:
    name, port, tls = table.text("host"), table.number("port"), table.take("ssl")
    login, passcode = table.text("login") or "", table.text("passcode") or ""
    if name is None:
        table.lose_whole("there is no host, so that this entry says nothing")
        return None
    if isinstance(tls, dict) or (tls is not None and not isinstance(tls, bool)):
        table.lose("ssl", f"expected true or false, not {kind_of(tls)}: see broker.tls_ca, tls_cert and tls_key")
        tls = True
    scheme = "stomp+ssl" if tls else "stomp"
    where = f"[{name}]" if ":" in name and not name.startswith("[") else name
    try:
        broker = parse_address(f"{scheme}://{where}" + ("" if port is None else f":{port}")).brokers[0]
    except AddressError as error:
        table.lose_whole(str(error))
        return None
    return Broker(host=broker.host, port=broker.port, tls=broker.tls, login=login, passcode=passcode)


def _put_headers(table: OldTable) -> None:
    if vhost := table.text("host"):
        table.put("host", ("broker", "vhost"), vhost)
    if client := table.text("client-id"):
        table.put("client-id", ("broker", "client_id"), client)
    if beats := table.text("heart-beat"):
        times = [part.strip() for part in beats.split(",")]
        if len(times) == 2 and all(re.fullmatch("[0-9]{1,7}", part, re.ASCII) for part in times):
            table.put("heart-beat", ("broker", "heartbeat"), max(map(int, times)) / 1000)
        else:
            table.lose("heart-beat", "expected two numbers of milliseconds, 10000,10000")
    table.finish()


# -- options in a query ------------------------------------------------------------------------------------------------


def put_options(table: OldTable, query: str | None) -> bool | None:
    """Take `stomp-options` and fill what they set; return whether the brokers are tried in random order.

    Args:
        table: the file.
        query: options that stood in the address itself.
    """
    randomize = None
    known = {name.lower(): (new, note) for name, _, new, note in _OPTIONS if name}
    known["connecttimeout"] = known["timeout"]
    items = [("rserver", item) for item in (query or "").split("&")]
    items += [("stomp-options", item) for item in (table.text("stomp-options") or "").lstrip("?").split("&")]
    for key, item in items:
        name, _, value = item.partition("=")
        if not name:
            continue
        name, value = unquote(name).strip(), unquote(value).strip()
        new, note = known.get(name.lower(), ("", "not an option that is known"))
        full = table.full(f"{key}.{name}")
        if name.lower() == "randomize" and value.lower() in ("true", "false"):
            randomize = value.lower() == "true"
        elif name.lower() == "randomize":
            table.draft.lose(table.file, full, "expected true or false")
        elif not new:
            table.draft.lose(table.file, full, note)
        else:
            _put_seconds(table.file, table.draft, full, new, _in_seconds(table, full, new, name, value))
    return randomize


def _in_seconds(table: OldTable, full: str, new: str, name: str, value: str) -> object:
    """Return a time of a query in seconds, by the rules of an address; as it is where it is none."""
    try:
        address = parse_address(f"stomp://h?{name}={quote(value)}")
        seconds = getattr(address, new.partition(".")[2])
    except AddressError:
        return value
    if seconds is None:
        return value
    if seconds != float(value):
        table.draft.warn(
            f"{table.file.path}: {full} is taken for milliseconds, as the gem took it: {seconds:g} seconds"
        )
    return seconds


def _put_seconds(file: OldFile, draft: MigrationDraft, full: str, new: str, value: object) -> None:
    """Set one of the times of `[broker]`."""
    text = str(value) if type(value) in (int, float, str) else ""
    least = 0.1 if new.endswith("connect_timeout") else 0.001
    if text.startswith("-1"):
        draft.lose(file, full, "an attempt to connect always ends (broker.connect_timeout), and the next one follows")
    elif not _SECONDS(text) or float(text) < least:
        draft.lose(file, full, f"expected seconds from {least:g} up")
    else:
        section, _, key = new.partition(".")
        draft.put(file, full, (section, key), float(text))


__all__ = ["CONNECTOR_ROWS", "PASSCODE_NAME", "RSERVER_ROWS", "SERVER_ROWS", "put_broker", "put_brokers", "put_options"]
