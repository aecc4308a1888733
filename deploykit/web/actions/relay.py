"""Messages that somebody signed elsewhere, published as they are: `deploykit lock|unlock|access … --via`.

Rules:

* Only locks, unlocks, and requests for access pass. Deploys go by `rollouts`, so that they have a coordinator.
* Body and signature go on byte for byte. A body that we would not write ourselves is refused: no two readings of it.
* The signature must count by this console's trust, and the message must be as fresh as nodes ask for.
* The viewer must have the role that the action needs; whose key signed it decides the rest, on the nodes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, TypeAlias

import attrs

from deploykit.errors import ActionRefused, MessageError, PolicyRefused, SignatureError
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested, SiteLocked, SiteUnlocked
from deploykit.trust.check import Trust
from deploykit.trust.lockrules import judge
from deploykit.trust.signature import HEADER, decode_headers, verify
from deploykit.trust.statements import statement_of
from deploykit.web.actions.actionports import ActionPorts
from deploykit.web.actions.ports import RelayActions
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.viewer import Viewer
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode

Relayed: TypeAlias = SiteLocked | SiteUnlocked | AccessGrantRequested | AccessRevokeRequested

#: Bytes of the longest body, and of its signatures.
MOST_BODY: Final = 64 * 1024
MOST_SIGNATURE: Final = 64 * 1024
#: How old a statement on a lock may be: it is made in the moment before. A command says by itself until when it counts.
FRESH_MINUTES: Final = 10
FRESH: Final = timedelta(minutes=FRESH_MINUTES)
_WORDS: Final[dict[type[Relayed], str]] = {
    SiteLocked: "lock",
    SiteUnlocked: "unlock",
    AccessGrantRequested: "grant access",
    AccessRevokeRequested: "revoke access",
}


class ConsoleRelay(RelayActions):
    """See above.

    Args:
        ports: what it works with.
    """

    def __init__(self, ports: ActionPorts) -> None:
        self._ports = ports

    def relay(self, viewer: Viewer, body: bytes, signature: str) -> ActionOutcome:
        """See `RelayActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "relay"):
            message = read_relayed(body)
            header = _one_header(signature)
        site, word = message.site, _WORDS[type(message)]
        with ports.audit.judging(viewer, word, site=site):
            require(viewer, site, "live", f"{word} a site" if word in ("lock", "unlock") else word)
            frame = Frame({**encode(message).headers, HEADER: header}, body)
            keys = require_counting(message, frame, ports.trust(), ports.now())
            destination = ports.settings.topics.deploy if _is_statement(message) else ports.settings.topics.access
            ports.bus.publish(destination, frame, timeout=ports.settings.broker.connect_timeout)
        detail = f"{message.summary}; signed by {keys}, passed on unchanged"
        ports.audit.done(viewer, word, detail, site=site, decision="asked")
        return ActionOutcome(state="asked", site=site, detail=message.summary, notes=(f"signed by {keys}",))


def read_relayed(body: bytes) -> Relayed:
    """Return the message of a body that may be passed on. Pure.

    Raises:
        ActionRefused: 413: it is too long; 422: it is another message, or not the bytes that we would write.
    """
    if len(body) > MOST_BODY:
        raise ActionRefused(f"a body has at most {MOST_BODY} bytes", status=413)
    try:
        message = decode({"content-type": CONTENT_TYPE}, body)
    except MessageError as error:
        raise _wrong(f"that is no message: {error.problem}") from error
    if not isinstance(message, SiteLocked | SiteUnlocked | AccessGrantRequested | AccessRevokeRequested):
        what = type(message).__name__ if message is not None else "keepalive"
        raise _wrong(f"a {what} is not passed on: only locks, unlocks, and requests for access are")
    if message.extra or message.extensions:
        names = ", ".join(ascii(name)[1:61] for name in [*message.extra, *message.extensions][:5])
        raise _wrong(f"it has fields that this version does not know: {names}")
    if encode(message).body != body:
        raise _wrong("its bytes are not those that deploykit writes for what it says")
    return message


def require_counting(message: Relayed, frame: Frame, trust: Trust, now: datetime) -> str:
    """Return which keys signed a message, where that counts now. Pure but for the trusted files.

    Args:
        message, frame: what the frame says, and the frame.
        trust: whose signatures count here, and for what.
        now: aware.

    Raises:
        ActionRefused: 403: a signature does not count, or its key may not send this; 409: it is too old.
        KeyFileError: the trusted files cannot be read.
    """
    try:
        if isinstance(message, SiteLocked | SiteUnlocked):
            if abs(now - message.time) > FRESH:
                problem = (
                    f"it was made at {message.time:%Y-%m-%d %H:%M} UTC: statements pass for {FRESH_MINUTES} minutes"
                )
                raise ActionRefused(problem, "sign it anew; where it was just signed, compare the clocks", status=409)
            return judge(statement_of(frame), trust, now).signer.fingerprint
        signers = verify(frame, trust.trusted(), now)
        # For which nodes it is, they decide; here it counts whoever they are.
        trust.policy.authorize(attrs.evolve(message, audience=None), signers, trust.node, now)
    except (MessageError, PolicyRefused) as error:
        raise ActionRefused(error.problem, error.remedy, signature=error.problem) from error
    return signers.fingerprint


def _is_statement(message: Relayed) -> bool:
    return isinstance(message, SiteLocked | SiteUnlocked)


def _one_header(text: str) -> str:
    """Return the value of a signature header, if it is one."""
    value = text.strip()
    try:
        if not value or len(value) > MOST_SIGNATURE:
            raise SignatureError("it is empty, or too long")
        decode_headers(value)
    except MessageError as error:
        problem = f"that is no signature: {error.problem}"
        raise ActionRefused(problem, "give the value of a signature header", status=422, signature=problem) from error
    return value


def _wrong(problem: str) -> ActionRefused:
    return ActionRefused(problem, "sign and send it with the same version", status=422, body=problem)


__all__ = ["FRESH", "MOST_BODY", "ConsoleRelay", "read_relayed", "require_counting"]
