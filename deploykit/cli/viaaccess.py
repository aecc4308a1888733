"""`access grant|revoke|list` through a console: the password is made here, and leaves this process as a hash only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from deploykit.cli.asking import print_notes, print_table
from deploykit.cli.options import print_json
from deploykit.cli.vialock import has_key, relay_via
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.names import NodeName, SiteName
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.via.client import ConsoleClient
    from deploykit.web.actions.shown import AccessRow

#: Seconds between two looks at what nodes have reported.
_LOOK: Final = 1.0
#: The state of a node that has not answered yet.
_ASKED: Final = "asked"


def grant_via(
    console: ConsoleClient,
    settings: Settings,
    site: SiteName,
    user: str,
    *,
    until: datetime | None,
    extend: bool,
    nodes: Sequence[NodeName],
    timeout: float,
    key: KeyChoice,
    as_json: bool,
) -> int:
    """Let a user see a site, or longer than before; wait for the nodes' reports, and return the exit code."""
    from deploykit.operations.accessmessages import grant_message
    from deploykit.system.passwordmaking import make_password
    from deploykit.web.actions.shown import AccessGranted

    if has_key(settings, key):
        password = "" if extend else make_password()
        message = grant_message(None, site, user, password=password, until=until, nodes=nodes)
        relay_via(console, settings, message, key)
    else:
        _refuse_nodes(nodes)
        body = {"site": site, "user": user, **({"until": until.isoformat()} if until is not None else {})}
        if extend:
            console.do("POST", "/access/extend", body)
            password = ""
        else:
            password = console.done(AccessGranted, "POST", "/access", body).password
    row = _awaited(console, site, user, timeout)
    return _show(site, user, row, wanted=("granted",), password=password, as_json=as_json)


def revoke_via(
    console: ConsoleClient,
    settings: Settings,
    site: SiteName,
    user: str,
    *,
    nodes: Sequence[NodeName],
    timeout: float,
    key: KeyChoice,
    as_json: bool,
) -> int:
    """End an access, wait until no node shows it any more, and return the exit code."""
    from deploykit.operations.accessmessages import revoke_message

    if has_key(settings, key):
        relay_via(console, settings, revoke_message(None, site, user, nodes=nodes), key)
    else:
        _refuse_nodes(nodes)
        console.do("DELETE", "/access", query={"site": site, "user": user})
    end = time.monotonic() + timeout
    while (row := _row(console, site, user)) is not None and _has_access(row) and time.monotonic() < end:
        time.sleep(_LOOK)  # the console shows what nodes report, and says nothing of its own when one does
    return _show(site, user, row, wanted=("revoked", "expired"), password="", as_json=as_json)


def list_via(console: ConsoleClient, site: SiteName | None, *, as_json: bool) -> int:
    """Print who may see a site, or all of them, as nodes have reported it to the console."""
    from deploykit.operations.times import shown_time
    from deploykit.via.answers import items_of, read_answer
    from deploykit.web.actions.shown import AccessRow

    values = items_of(console.get("/access", {"site": site} if site else None).value)
    if as_json:
        print_json({"access": values})
        return 0
    rows = [read_answer(AccessRow, value) for value in values]
    cells = [
        (
            row.site,
            row.user,
            shown_time(row.until) if row.until is not None else "",
            row.requested_by,
            ", ".join(f"{node}: {state}" for node, state in row.nodes),
        )
        for row in rows
    ]
    if cells:
        print_table(("site", "user", "until", "by", "nodes"), cells)
    else:
        click.echo("nobody has access")
    return 0


def _refuse_nodes(nodes: Sequence[NodeName]) -> None:
    from deploykit.errors import UsageError

    if nodes:
        raise UsageError("--node needs a key of yours: the console asks every node of the site", "give --key")


def _row(console: ConsoleClient, site: str, user: str) -> AccessRow | None:
    from deploykit.web.actions.shown import AccessRow

    rows = console.items(AccessRow, "/access", {"site": site})
    return next((row for row in rows if row.user == user and row.site == site), None)


def _awaited(console: ConsoleClient, site: str, user: str, timeout: float) -> AccessRow | None:
    """Return the access once all nodes have answered, or when time is over."""
    end = time.monotonic() + timeout
    while True:
        row = _row(console, site, user)
        states = dict(row.nodes) if row is not None else {}
        if (states and _ASKED not in states.values()) or time.monotonic() >= end:
            return row
        time.sleep(_LOOK)  # the console shows what nodes report, and says nothing of its own when one does


def _has_access(row: AccessRow) -> bool:
    return any(state in ("granted", _ASKED) for _, state in row.nodes)


def _show(site: str, user: str, row: AccessRow | None, *, wanted: tuple[str, ...], password: str, as_json: bool) -> int:
    states = dict(row.nodes) if row is not None else {}
    problems = dict(row.problems) if row is not None else {}
    done = [node for node, state in states.items() if state in wanted and node not in problems]
    silent = [node for node, state in states.items() if state == _ASKED]
    revoked = "revoked" in wanted
    code = 0 if len(done) == len(states) and (done or revoked) else 1
    if states and all(state == "refused" for state in states.values()):
        code = 3
    shown = password if done or silent or not states else ""  # refused everywhere: it opens nothing
    if as_json:
        print_json(
            {
                **{"site": site, "user": user, "done": done, "silent": silent, "nodes": states},
                "problems": problems,
                **({"password": shown} if shown else {}),
            }
        )
        return code
    for node, state in states.items():
        click.echo(visible(f"{node}: {_words(state, problems.get(node, ''))}"))
    if not done and not revoked and len(silent) == len(states):
        print_notes([f"no node has reported the access of {user} to {site} yet"])
    if revoked and not states:
        click.echo(visible(f"all nodes were asked to keep {user} out of {site}; none shows an access now"))
    if shown:
        click.echo(visible(f"the password of {user} for {site}, shown this once: {shown}"))
    return code


def _words(state: str, problem: str) -> str:
    if state == _ASKED:
        return "no report yet; see `deploykit access list`"
    if problem:
        return f"{'not done, the access is as before' if state == 'granted' else state}: {problem}"
    return state


__all__ = ["grant_via", "list_via", "revoke_via"]
