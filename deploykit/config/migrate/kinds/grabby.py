"""stomp.conf of the oldest deploy page: where its broker is, and the key that everybody shared."""

from __future__ import annotations

from typing import Final

import attrs

from deploykit.config.migrate.broker import put_brokers
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import AddressError
from deploykit.settings.address import Broker, parse_address

_PSK: Final = (
    "nobody shares a key: make one for each person and node (deploykit keys generate), list them in "
    "trust.allowed_signers, and say in [[trust.grants]] who may do what (docs/keys.md)"
)
ROWS: Final = (
    Row(old="STOMP_SERVER", new="broker.address"),
    Row(old="STOMP_USER", new="broker.login"),
    Row(old="STOMP_PASSWORD", new="broker.passcode_file", note="a file of its own, mode 0600"),
    Row(old="MCOLLECTIVE_PSK", note=_PSK),
)


def _fits(file: OldFile) -> bool:
    return bool({"MCOLLECTIVE_PSK", "STOMP_SERVER"} & file.data.keys())


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    server, login, passcode = table.text("STOMP_SERVER"), table.text("STOMP_USER"), table.text("STOMP_PASSWORD")
    brokers: tuple[Broker, ...] = ()
    if server is not None:
        try:
            brokers = parse_address(f"stomp://{server}").brokers
        except AddressError as error:
            table.lose_error("STOMP_SERVER", error)
    if brokers:
        brokers = tuple(attrs.evolve(each, login=login or "", passcode=passcode or "") for each in brokers)
        put_brokers(table, "STOMP_SERVER", brokers)
    for key in ("STOMP_USER", "STOMP_PASSWORD"):
        if not brokers and table.has(key):
            table.lose(key, "there is no STOMP_SERVER to log in to: set broker.address, login and passcode_file")
    if passcode is not None and login is None:
        table.lose("STOMP_PASSWORD", "of no STOMP_USER: set broker.login and passcode_file")
    table.finish()


KIND: Final = Kind(
    name="grabby",
    title="oldest deploy page",
    file="stomp.conf",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
