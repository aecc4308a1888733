"""MCollective's server.cfg and client.cfg, under which the original's deploy agent ran -> node, broker, facts, classes.

Whatever decided who may do what has no counterpart key by key: one shared key there, keys of people and grants here.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from deploykit.config.migrate.broker import put_brokers
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.naming import absolute_path
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import AddressError, InvalidName
from deploykit.names import parse_node_name
from deploykit.settings.address import Broker, parse_address
from deploykit.settings.facts import CLASSES_FILES

_KEYS: Final = (
    "nobody shares a key: make one for each person and node (deploykit keys generate), list them in "
    "trust.allowed_signers, and say in [[trust.grants]] who may do what (docs/keys.md)"
)
_GRANTS: Final = "signatures and [[trust.grants]] decide (docs/signatures.md)"
_COLLECTIVES: Final = (
    "there are no collectives: grants name sites, and selectors choose nodes; for a fleet of its own use another vhost "
    "or other [topics]"
)
_GROWS: Final = "pauses always grow, with jitter, and it goes on trying until it is ended"
_STOMP: Final = "STOMP, to ActiveMQ and RabbitMQ alike (docs/brokers.md)"
_PLUGINS: Final = "plugins of MCollective do not run here"
_CONNECTORS: Final = ("activemq", "rabbitmq", "stomp")  # the last one spoke to any broker
_POOL: Final = (("host", "broker.address"), ("port", "broker.address"), ("user", "broker.login"))


#: The keys of a connector; `CONNECTOR` is one of them.
_CONNECTOR_ROWS: Final = (
    *(Row(old=f"plugin.CONNECTOR.pool.NUMBER.{key}", new=new) for key, new in _POOL),
    Row(old="plugin.CONNECTOR.pool.NUMBER.password", new="broker.passcode_file", note="a file of its own, mode 0600"),
    Row(
        old="plugin.CONNECTOR.pool.NUMBER.ssl",
        new="broker.address",
        note="`stomp+ssl://`; the certificate is checked now",
    ),
    Row(old="plugin.CONNECTOR.pool.NUMBER.ssl.ca", new="broker.tls_ca"),
    Row(old="plugin.CONNECTOR.pool.NUMBER.ssl.cert", new="broker.tls_cert"),
    Row(old="plugin.CONNECTOR.pool.NUMBER.ssl.key", new="broker.tls_key"),
    Row(old="plugin.CONNECTOR.pool.NUMBER.ssl.fallback", note="TLS never turns into plain text"),
    Row(old="plugin.CONNECTOR.pool.size", note="the brokers that are there count"),
    Row(old="plugin.CONNECTOR.host", new="broker.address", note="and port, user, password: as of a pool"),
    Row(old="plugin.CONNECTOR.vhost", new="broker.vhost"),
    Row(old="plugin.CONNECTOR.randomize", new="broker.address", note="an option of the address"),
    Row(old="plugin.CONNECTOR.heartbeat_interval", new="broker.heartbeat"),
    Row(old="plugin.CONNECTOR.initial_reconnect_delay", new="broker.backoff_initial"),
    Row(old="plugin.CONNECTOR.max_reconnect_delay", new="broker.backoff_max"),
    Row(old="plugin.CONNECTOR.connect_timeout", new="broker.connect_timeout"),
    Row(old="plugin.CONNECTOR.OPTION", note=_GROWS),
)
ROWS: Final = (
    Row(old="identity", new="node"),
    Row(old="connector", note=_STOMP),
    *_CONNECTOR_ROWS,
    Row(old="factsource", new="facts.facter", note="`yaml`: facts.files, by plugin.yaml"),
    Row(old="plugin.yaml", new="facts.files", note="each fact that selectors need has to be named in facts.allow"),
    Row(old="classesfile", new="facts.classes_files", note="where it is none of Puppet's usual places"),
    Row(old="securityprovider", note=_GRANTS),
    Row(old="plugin.psk", note=_KEYS),
    Row(old="main_collective", note=_COLLECTIVES),
    Row(old="collectives", note=_COLLECTIVES),
    Row(old="logfile", note="a daemon logs to standard error, for the journal; how is in [log]"),
    Row(old="loglevel", note="how much is logged is log.level"),
    Row(old="logger_type", note="a daemon logs to standard error, for the journal; how is in [log]"),
    Row(old="keeplogs", note="the journal keeps logs"),
    Row(old="max_log_size", note="the journal keeps logs"),
    Row(old="daemonize", note="systemd starts daemons (docs/service.md)"),
    Row(old="libdir", note=_PLUGINS),
    Row(old="registerinterval", note="nodes describe themselves unasked, every facts.every seconds"),
    Row(old="registration", note="nodes describe themselves unasked (docs/discovery.md)"),
    Row(old="rpcauthorization", note=f"always on; {_GRANTS}"),
    Row(old="rpcauthprovider", note=_GRANTS),
    Row(old="rpcaudit", note="always on (docs/audit.md)"),
    Row(old="rpcauditprovider", note="the audit is a file, and chained (docs/audit.md)"),
    Row(old="plugin.rpcaudit.logfile", note="the audit is a file below `state` (docs/audit.md)"),
    Row(old="direct_addressing", note="always: each node has its own topic"),
    Row(old="ttl", note="who signs a command says how long it counts, up to trust.max_expiry"),
    Row(old="fact_cache_time", note="facts are read when they are sent"),
)
_CONNECTOR_KEY = re.compile(r"plugin\.(?P<name>activemq|rabbitmq|stomp)\.(?P<rest>.+)\Z").match
_NUMBERED = re.compile(
    r"pool\.(?P<number>[0-9]{1,3})\.(?P<key>.+)\Z|pool\.(?P<old>[a-z]+)(?P<older>[0-9]{1,3})\Z"
).match
_SECONDS = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?\Z", re.ASCII).match
_TIMES: Final = {
    "heartbeat_interval": "heartbeat",
    "initial_reconnect_delay": "backoff_initial",
    "max_reconnect_delay": "backoff_max",
    "connect_timeout": "connect_timeout",
}
_YES: Final = frozenset({"1", "y", "yes", "true", "t"})
_NO: Final = frozenset({"0", "n", "no", "false", "f"})
_MOST_BROKERS: Final = 20


def _fits(file: OldFile) -> bool:
    keys = file.data.keys()
    return bool(keys & {"securityprovider", "main_collective", "collectives", "direct_addressing"}) or (
        "connector" in keys and any(key.startswith("plugin.") for key in keys)
    )


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    identity = table.text("identity")
    if identity is not None:
        try:
            table.put("identity", ("node",), str(parse_node_name(identity)))
        except InvalidName as error:
            table.lose_error("identity", error)
    _put_facts(table)
    _put_connector(table)
    for key in table.rest():
        if key.startswith("plugin."):
            table.lose(key, _plugin_note(key))
    table.finish()
    draft.warn(
        "broker: MCollective's login may only reach MCollective's topics: let it, or another login, read and write "
        "those of [topics] (docs/brokers.md)"
    )


def _put_facts(table: OldTable) -> None:
    source = table.text("factsource")
    if source == "facter":
        table.put("factsource", ("facts", "facter"), True)
    elif source not in (None, "yaml"):
        table.lose("factsource", "facts come from files and from facter (docs/discovery.md)")
    files = [text.strip() for text in re.split("[:;]", table.text("plugin.yaml") or "") if text.strip()]
    if files and all(text.startswith("/") for text in files):
        table.put("plugin.yaml", ("facts", "files"), files, "none is sent that facts.allow does not name")
    elif files:
        table.lose("plugin.yaml", "expected absolute paths: set facts.files by hand")
    classes = absolute_path(table, "classesfile")
    if classes is not None and classes not in map(str, CLASSES_FILES):
        table.put("classesfile", ("facts", "classes_files"), [classes])


def _put_connector(table: OldTable) -> None:
    """Take the brokers of the connector that is in use; those of another are lost."""
    keys = {key: found for key in table.rest() if (found := _CONNECTOR_KEY(key))}
    names = dict.fromkeys(found["name"] for found in keys.values())
    used = table.text("connector") or next(iter(names), "")
    if table.has("connector"):
        table.lose("connector", _STOMP)
    pool: dict[int, dict[str, str]] = {}
    for key, found in keys.items():
        if found["name"] != used:
            table.lose(key, f"the connector is {used}" if used in _CONNECTORS else "its connector is not in use")
            continue
        number = _NUMBERED(found["rest"])
        if number is not None:
            at, name = int(number["number"] or number["older"]), number["key"] or number["old"]
            pool.setdefault(at, {})[name] = key
        elif found["rest"] in ("host", "port", "user", "password"):
            pool.setdefault(0, {})[found["rest"]] = key
    if pool and not any("host" in entry for entry in pool.values()):
        first = next(iter(next(iter(pool.values())).values()))
        table.lose(first, "no host is named: set broker.address")
    _put_pool(table, [pool[at] for at in sorted(pool)])
    vhost = table.text(f"plugin.{used}.vhost")
    if vhost is not None:
        table.put(f"plugin.{used}.vhost", ("broker", "vhost"), vhost)
    for name, new in _TIMES.items():
        _put_seconds(table, f"plugin.{used}.{name}", new)


def _put_seconds(table: OldTable, key: str, new: str) -> None:
    """Set one of the times of `[broker]`."""
    text = table.text(key)
    if text is None:
        return
    if _SECONDS(text) and 0.1 <= float(text) <= 3600:
        table.put(key, ("broker", new), float(text))
    else:
        table.lose(key, "expected seconds from 0.1 to 3600")


def _put_pool(table: OldTable, pool: list[dict[str, str]]) -> None:
    """Set `[broker]` from entries of a pool, each by name of a part and the key that holds it."""
    brokers: list[Broker] = []
    first = ""
    for at, entry in enumerate(pool):
        if at >= _MOST_BROKERS:
            for key in entry.values():
                table.lose(key, f"more than {_MOST_BROKERS} brokers")
            continue
        broker = _broker(table, entry)
        if broker is None:
            continue
        if brokers and broker.tls != brokers[0].tls:
            table.lose(entry["host"], "with and without TLS in one list: use it for all, or none")
            _lose_entry(table, entry, "of a broker with TLS beside one without, or the other way round")
            continue
        first = first or entry["host"]
        brokers.append(broker)
        for part, name in (("ssl.ca", "tls_ca"), ("ssl.cert", "tls_cert"), ("ssl.key", "tls_key")):
            path = absolute_path(table, entry[part]) if part in entry else None
            if path is not None:
                table.put(entry[part], ("broker", name), path)
    if brokers:
        used = first.split(".")[1]
        randomize = f"plugin.{used}.randomize"
        put_brokers(table, first, brokers, _flag(table, randomize) if table.has(randomize) else None)
    _pair_certificate(table)


def _pair_certificate(table: OldTable) -> None:
    """Take back a client certificate without its key, or a key without its certificate."""
    values = table.draft.values
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if ("broker", one) in values and ("broker", other) not in values:
            del values[("broker", one)]
            old = f"plugin.NAME.pool.NUMBER.ssl.{one.removeprefix('tls_')}"
            table.draft.lose(table.file, old, f"goes together with broker.{other}: set both")


def _broker(table: OldTable, entry: dict[str, str]) -> Broker | None:
    """Return the broker of an entry; None, and its keys lost, where it names none."""
    host, port = (table.text(entry[part]) if part in entry else None for part in ("host", "port"))
    login, passcode = (table.text(entry[part]) if part in entry else None for part in ("user", "password"))
    tls = _flag(table, entry["ssl"]) if "ssl" in entry else False
    if host is None:
        _lose_entry(table, entry, "of a broker without a host")
        return None
    where = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        broker = parse_address(f"{'stomp+ssl' if tls else 'stomp'}://{where}{f':{port}' if port else ''}").brokers[0]
    except AddressError as error:
        table.lose_error(entry["host"], error)
        _lose_entry(table, entry, "of a broker that is not understood")
        return None
    return attrs.evolve(broker, login=login or "", passcode=passcode or "")


def _flag(table: OldTable, key: str) -> bool:
    """Return whether a key says yes; what is neither yes nor no is lost, and counts as yes: nothing turns TLS off."""
    text = (table.text(key) or "").lower()
    if text not in _YES | _NO:
        table.lose(key, "expected 1 or 0")
    return text not in _NO


def _lose_entry(table: OldTable, entry: dict[str, str], why: str) -> None:
    """Lose what an entry of a pool has beside its host."""
    for part, key in entry.items():
        if part != "host" and table.has(key):
            table.lose(key, why)


def _plugin_note(key: str) -> str:
    """Return why the setting of a plugin is not carried over."""
    if _CONNECTOR_KEY(key):
        general = re.sub(r"plugin\.[a-z]+\.", "plugin.CONNECTOR.", re.sub(r"\.[0-9]+\.", ".NUMBER.", key), count=1)
        return _NOTES.get(general) or _GROWS
    return _NOTES.get(key) or (_KEYS if any(word in key for word in ("psk", "ssl", "key", "aes")) else _PLUGINS)


_NOTES: Final = {row.old: row.note for row in ROWS}

KIND: Final = Kind(
    name="mcollective",
    title="MCollective, under which the deploy agent ran",
    file="server.cfg, client.cfg",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
