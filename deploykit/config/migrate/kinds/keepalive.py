"""stomp-keepalive: `/etc/stomp-keepalive/stomp-keepalive.yaml` -> `[keepalive]`, a login for each destination."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import (
    CONNECTOR_ROWS,
    RSERVER_ROWS,
    SERVER_ROWS,
    put_broker,
    put_brokers,
    put_options,
)
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import AddressError, DialectError
from deploykit.messages.destinations import check_destination
from deploykit.names import path_component
from deploykit.settings.address import Broker, parse_address

ROWS: Final = (
    *SERVER_ROWS,
    *(row for row in (*RSERVER_ROWS, *CONNECTOR_ROWS) if row not in SERVER_ROWS),
    Row(
        old="topics.NAME.type",
        new="keepalive.destinations.NAME.destination",
        note="`/topic/NAME` or `/queue/NAME`",
    ),
    Row(old="topics.NAME.user", new="keepalive.destinations.NAME.login"),
    Row(
        old="topics.NAME.pass",
        new="keepalive.destinations.NAME.passcode_file",
        note="a file of its own, mode 0600",
    ),
)
_NUMBERS: Final = ("1", "2", "3", "4")


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    if any(f"stompserver{n}" in file.data for n in _NUMBERS):
        _servers(table)
    else:
        put_broker(table)
    for name, topic in table.tables("topics"):
        _topic(name, topic)
        topic.finish()
    table.finish()


def _servers(table: OldTable) -> None:
    """Fill the brokers' address from the hosts that are named by number."""
    randomize = put_options(table, None)
    brokers: list[Broker] = []
    for number in _NUMBERS:
        host, port = table.text(f"stompserver{number}"), table.number(f"stompport{number}")
        if host is None:
            if port is not None:
                table.lose(f"stompport{number}", f"there is no stompserver{number}")
            continue
        try:
            brokers += parse_address(f"stomp://{host}" + ("" if port is None else f":{port}")).brokers
        except AddressError as error:
            table.lose_error(f"stompserver{number}", error)
    if brokers:
        put_brokers(table, "stompserver1", brokers, randomize)


def _topic(name: str, table: OldTable) -> None:
    """Convert one destination."""
    kind, user, passcode = table.text("type") or "topic", table.text("user"), table.text("pass")
    destination = f"/{kind}/{name.lstrip('/')}"
    try:
        check_destination(destination)
        if kind not in ("topic", "queue"):
            raise DialectError("type: expected topic or queue")
    except DialectError as error:
        table.lose_whole(str(error))
        return
    place: Place = ("keepalive", "destinations", name)
    table.put("type", (*place, "destination"), destination)
    if user:
        table.put("user", (*place, "login"), user)
        if passcode:
            file = f"{path_component(f'keepalive-{name}')}.passcode"
            table.put_secret("pass", (*place, "passcode_file"), file, passcode)
    elif passcode:
        table.lose("pass", "there is no user that it could be the passcode of")


def _fits(file: OldFile) -> bool:
    topics = file.data.get("topics")
    return isinstance(topics, dict) and not file.data.keys() & {"sites", "listen-topic", "repo-list", "sources"}


KIND: Final = Kind(
    name="keepalive",
    title="heart-beat for firewalls",
    file="stomp-keepalive.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)

__all__ = ["KIND"]
