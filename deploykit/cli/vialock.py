"""`lock` and `unlock` through a console: signed here and passed on unchanged, or by the console's own key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from deploykit.cli.asking import print_notes
from deploykit.cli.options import print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.messages import Message
    from deploykit.names import SiteName
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.via.client import ConsoleClient
    from deploykit.web.actions.shown import ActionOutcome, LockState


def lock_via(
    console: ConsoleClient,
    settings: Settings,
    site: SiteName,
    reason: str,
    *,
    until: datetime | None,
    since: datetime | None,
    allow_rollback: bool,
    key: KeyChoice,
    as_json: bool,
) -> int:
    """Lock a site, and return the exit code."""
    from deploykit.errors import UsageError
    from deploykit.messages import utc_now
    from deploykit.operations.lockdrafts import lock_message
    from deploykit.via.statements import require_serial
    from deploykit.web.actions.shown import ActionOutcome

    now = utc_now()
    draft = lock_message(site, reason, now, until=until, since=since, allow_rollback=allow_rollback)
    if not has_key(settings, key):
        if since is not None:
            raise UsageError("--since needs a key of yours: the console's own locks begin at once", "give --key")
        body = {"reason": reason, "allow_rollback": allow_rollback, "until": draft.until.isoformat()}
        return _counted(console.done(ActionOutcome, "PUT", _path(site), body), as_json=as_json)
    import attrs

    state = _state(console, site)
    message = attrs.evolve(draft, serial=require_serial(state, now))
    return _show(relay_via(console, settings, message, key), as_json=as_json)


def unlock_via(
    console: ConsoleClient, settings: Settings, site: SiteName, reason: str, *, key: KeyChoice, as_json: bool
) -> int:
    """Lift the lock of a site, and return the exit code."""
    from deploykit.errors import NobodyMatches
    from deploykit.messages import utc_now
    from deploykit.operations.lockdrafts import unlock_message
    from deploykit.via.statements import lifted_lock, require_serial
    from deploykit.web.actions.shown import ActionOutcome

    if not has_key(settings, key):
        query = {"reason": reason} if reason else None
        return _counted(console.done(ActionOutcome, "DELETE", _path(site), query=query), as_json=as_json)
    state = _state(console, site)
    if not state.nodes:
        raise NobodyMatches(f"no node with site {site} answered the console, so nothing is known of its lock")
    found = lifted_lock(state, site)
    if found is None:
        from deploykit.operations.locks import not_locked

        doubted = bool(state.locks)  # one that the console believes would be the one to lift
        print_notes(state.locks)
        detail = not_locked(site, doubted=doubted)
        if as_json:
            print_json({"site": site, "state": "asked" if doubted else "done", "detail": detail})
        else:
            click.echo(visible(detail))
        return 1 if doubted else 0
    statement, lock = found
    click.echo(visible(f"deploykit: it lifts: {lock.summary}"), err=True)
    now = utc_now()
    message = unlock_message(site, reason, now, locked=statement, serial=require_serial(state, now))
    return _show(relay_via(console, settings, message, key), as_json=as_json)


def has_key(settings: Settings, key: KeyChoice) -> bool:
    """Return whether there is a key here that signs; otherwise the console's own does."""
    return key.given or settings.signing_key is not None


def relay_via(console: ConsoleClient, settings: Settings, message: Message, key: KeyChoice) -> ActionOutcome:
    """Sign a message here, have the console pass it on unchanged, and return what came of it."""
    import base64

    from deploykit.trust.signature import HEADER, sign
    from deploykit.web.actions.shown import ActionOutcome
    from deploykit.wire import encode

    frame = sign(encode(message), key.load(settings))
    body = {"body": base64.b64encode(frame.body).decode(), "signature": str(frame.headers[HEADER])}
    return console.done(ActionOutcome, "POST", "/relay", body)


def _state(console: ConsoleClient, site: SiteName) -> LockState:
    from deploykit.web.actions.shown import LockState

    return console.read(LockState, _path(site))


def _path(site: str) -> str:
    return f"/sites/{quote(site, safe='')}/lock"


def _counted(outcome: ActionOutcome, *, as_json: bool) -> int:
    """Show what became of a statement of the console; 1 unless all nodes that answered hold it."""
    _show(outcome, as_json=as_json)
    return 0 if outcome.state == "done" else 1


def _show(outcome: ActionOutcome, *, as_json: bool) -> int:
    print_notes([f"the console: {note}" for note in outcome.notes])
    if as_json:
        print_json(_entry(outcome))
    else:
        click.echo(visible(outcome.detail or outcome.state))
    return 0


def _entry(outcome: ActionOutcome) -> Mapping[str, object]:
    return {"site": outcome.site, "state": outcome.state, "detail": outcome.detail, "notes": list(outcome.notes)}


__all__ = ["has_key", "lock_via", "relay_via", "unlock_via"]
