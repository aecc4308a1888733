"""People with keys who lock and unlock sites, and what a node believes of them; for tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import attrs

from deploykit.messages import Message, SiteLocked, SiteUnlocked
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import Signer, Signers, SigningKey, sign
from deploykit.trust.statements import statement_of
from deploykit.wire import encode

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHOP = SiteName("shop")
#: What each person is granted for every site, unless a test says otherwise.
RIGHTS = {
    "ann": ("site.locked",),
    "bob": ("site.locked",),
    "chief": ("site.locked", "lock.release"),
    "oncall": ("deploy.requested", "lock.override"),
    "ops": ("deploy.requested",),
    "nobody": (),
}


class Locking:
    """Some people, their keys, and a node that trusts them. What it trusts can be changed at any time."""

    def __init__(self) -> None:
        self.keys = {name: SigningKey.generate() for name in (*RIGHTS, "stranger")}
        self.revoked: set[str] = set()
        self.options: dict[str, str] = {}
        self.unreadable: Exception | None = None
        self.rights: dict[str, tuple[str, ...]] = dict(RIGHTS)
        self._parsed: dict[tuple[str, str], AllowedSigners] = {}

    def trust(self, node: str = "web1", *, grants: Iterable[GrantSettings] | None = None) -> Trust:
        """What the node believes at each call; its grants are those of now."""
        default = [GrantSettings(principal=name, types=types) for name, types in self.rights.items() if types]
        policy = Policy(grants=tuple(default if grants is None else grants))
        return Trust(self.trusted, policy, NodeName(node))

    def trusted(self) -> AllowedSigners:
        """The lines that count now."""
        if self.unreadable is not None:
            raise self.unreadable
        lines = "\n".join(
            f'{name} namespaces="deploykit"{self.options.get(name, "")} {self.keys[name].public_openssh}'
            for name in self.rights
        )
        revoked = "".join(f"{self.keys[name].public_openssh}\n" for name in self.revoked)
        if (lines, revoked) not in self._parsed:
            self._parsed[lines, revoked] = AllowedSigners.parse(lines, revoked=revoked)
        return self._parsed[lines, revoked]

    def signer(self, name: str) -> Signers:
        """A person as the signer of a command."""
        return Signers(each=(Signer(fingerprint=self.keys[name].fingerprint, principals=((name,),)),))

    def signed(self, by: str, message: Message) -> SignedStatement:
        """A person's statement."""
        return statement_of(sign(encode(message), self.keys[by]))

    def lock(self, by: str, serial: int, **changes: object) -> SignedStatement:
        """A lock of the shop for an hour."""
        return self.signed(by, lock(by, serial, **changes))

    def unlock(self, by: str, serial: int, **changes: object) -> SignedStatement:
        """The end of a lock of the shop."""
        return self.signed(by, unlock(by, serial, **changes))


def lock(by: str, serial: int, **changes: object) -> SiteLocked:
    """A lock of the shop for an hour, not signed."""
    made = SiteLocked(
        id=f"lock-{serial}-{by}",
        time=NOW,
        site=SHOP,
        serial=serial,
        holder=by,
        reason="the warehouse moves",
        until=NOW + HOUR,
    )
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def unlock(by: str, serial: int, **changes: object) -> SiteUnlocked:
    """The end of a lock of the shop, not signed."""
    made = SiteUnlocked(id=f"unlock-{serial}-{by}", time=NOW, site=SHOP, serial=serial, holder=by)
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]
