"""Who may see a protected site, and for how long. Commands: acted on only when signed, or where settings allow legacy.

Rule: a password in clear exists only in a message that came from a legacy body. It is never shown and never written to
the native wire; the daemon hashes it at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import NEVER_WRITTEN, Identifier, Message, PasswordHash, UserName, one_line
from deploykit.names import NodeName, SiteName


@attrs.frozen(kw_only=True, slots=True)
class AccessGrantRequested(Message):
    """A command: let `user` see `site` until `until`.

    Args:
        password_hash: crypt(3) form, bcrypt or SHA-512 crypt. None where `password` is given, or neither: then an
            access that is there is extended, and keeps its password.
        password: in clear, from a legacy body only.
        until: when the access ends; None leaves it to the daemon (the original's 14 days).
        audience: the nodes it is for; None means every node that has the site.
        expires: no node acts on the command after it. A receiver caps how far ahead it may lie.
    """

    TYPE: ClassVar[str] = "deploykit.access.grant-requested.v1"

    site: SiteName
    user: UserName
    password_hash: PasswordHash | None = attrs.field(default=None, repr=False)
    until: datetime | None = None
    audience: tuple[NodeName, ...] | None = None
    expires: datetime | None = None
    requested_by: str = ""
    password: str = attrs.field(default="", repr=False, metadata=NEVER_WRITTEN)

    @property
    def summary(self) -> str:
        until = f" until {self.until:%Y-%m-%d}" if self.until else ""
        who = f" by {self.requested_by}" if self.requested_by else ""
        return one_line(f"access to {self.site} for {self.user}{until} requested{who}")


@attrs.frozen(kw_only=True, slots=True)
class AccessRevokeRequested(Message):
    """A command: `user` may see `site` no longer. Arguments as for `AccessGrantRequested`."""

    TYPE: ClassVar[str] = "deploykit.access.revoke-requested.v1"

    site: SiteName
    user: UserName
    audience: tuple[NodeName, ...] | None = None
    expires: datetime | None = None
    requested_by: str = ""

    @property
    def summary(self) -> str:
        who = f" by {self.requested_by}" if self.requested_by else ""
        return one_line(f"access to {self.site} for {self.user} to end, requested{who}")


@attrs.frozen(kw_only=True, slots=True)
class AccessReported(Message):
    """What became of an access on a node. Signed as that node; published for each command, and when an access ends.

    Args:
        request: the id of the command; empty where none asked for it: the time was over.
        answers: names the very copy of the command that is answered, as `DeployReported.answers` does.
        outcome: `granted` and `revoked` are read back from the server's file; `expired`: its time was over;
            `refused`: by policy; `failed`: the file or the server's configuration is as it was.
        until: when a granted access ends.
        detail: why it was refused or failed.
        requested_by: who asked, as the command says: consoles hear no commands, which may hold a password.
    """

    TYPE: ClassVar[str] = "deploykit.access.reported.v1"

    node: NodeName
    site: SiteName
    user: UserName
    outcome: Literal["granted", "revoked", "expired", "refused", "failed"]
    request: Identifier | None = None
    answers: str = ""
    until: datetime | None = None
    detail: str = ""
    requested_by: str = ""

    @property
    def summary(self) -> str:
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        why = f": {self.detail}" if self.detail else ""
        return one_line(f"access to {self.site} for {self.user} {self.outcome} on {self.node}{until}{why}")
