"""Two consoles on one PostgreSQL over five real nodes, and two people with browsers and devices of their own.

A rollout needs the signatures of both people. Nothing here does what a person does but by their browser; what the
operators do, by hand: they invite, and they distribute the lines of `allowed_signers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.settings import Settings
from deploykit.trust.signaturerules import SignatureRules
from tests.brokers.process import PortLease
from tests.support.browser import Tab
from tests.support.chain.brokers import ChainBroker
from tests.support.chain.member import Member
from tests.support.cli import command, run
from tests.support.fivenodes.world import OPERATOR, FiveNodes
from tests.support.passkeys import VirtualAuthenticator

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Seconds of a lease: another console takes over soon.
_LEASE: Final = 3
#: Milliseconds in which a page shows what was pressed: nodes are asked, on a machine that does much else.
PATIENCE: Final = 60_000
#: What the operators' key may ask of nodes, which is the consoles' key.
_RIGHTS: Final = (
    "rollout.run", "node.queried", "site.locked", "site.unlocked", "access.grant-requested", "access.revoke-requested",
)  # fmt: skip


class PressFleet(FiveNodes):
    """Five nodes that heed passkeys made at some origins, the first of which keeps the users of a protected site.

    Args:
        root, broker: as of `FiveNodes`.
        people: principals of whom both must sign.
        origins: of the consoles.
        users: the password file of the site `docs`.
    """

    def __init__(
        self, root: Path, broker: ChainBroker, *, people: Sequence[str], origins: Sequence[str], users: Path
    ) -> None:
        self._origins, self._users = tuple(origins), users
        super().__init__(root, broker, approvers=people)
        self.books.rules = SignatureRules(origins=frozenset(origins), rp_ids=frozenset({"localhost"}))

    @property
    def signers(self) -> Path:
        """The file `allowed_signers` of all machines."""
        return self._signers

    def records(self, short: str) -> list[AuditRecord]:
        """Return what a node has in its audit."""
        settings: Settings = self.places[short].settings
        found = read_records(settings.audit.path_in(settings.state))
        return [one for one in found if isinstance(one, AuditRecord)]

    def _settings(self, short: str, principal: str) -> Path:
        file = super()._settings(short, principal)
        listed = ", ".join(f'"{origin}"' for origin in self._origins)
        rights = ", ".join(f'"{right}"' for right in _RIGHTS)
        text = file.read_text()
        text = text.replace("[trust]\n", f'[trust]\norigins = [{listed}]\nrp_ids = ["localhost"]\n')
        before = f'{{ principal = "{OPERATOR}", types = ["rollout.run", "node.queried"] }}'
        assert before in text
        text = text.replace(before, f'{{ principal = "{OPERATOR}", types = [{rights}] }}')
        if short == "web1":
            text += f'\n[access]\ngather = 0.05\n[access.sites.docs]\nfile = "{self._users}"\n'
        file.write_text(text)
        return file


class PressConsole:
    """One console, a process: people log in by passkeys.

    Args:
        name: of its node and directory.
        lease: its port.
    """

    def __init__(self, name: str, lease: PortLease) -> None:
        self.name = name
        self._lease = lease
        self.url = f"http://localhost:{lease.port}"
        self.member: Member
        self.file: Path

    def set_up(self, fleet: PressFleet, database: str, people: Sequence[str]) -> None:
        """Write its settings."""
        home = fleet.root / self.name
        home.mkdir()
        self.file = home / "deploykit.toml"
        self.file.touch(0o600)
        text = fleet.desk_file.read_text().replace(str(fleet.root / "desk"), str(home))
        text = text.replace('node = "desk"', f'node = "{fleet.named(self.name)}"')
        # It runs no agent: these settings tell it what the site asks for.
        text += f'\n[sites.shop]\npath = "{home}/site"\nrepo = "shop"\nsignatures = {len(people)}\n'
        users = ", ".join(f'"{name}"' for name in people)
        text += f'\n[web]\nlisten = "127.0.0.1:{self._lease.port}"\nurl = "{self.url}"\nlogin = "passkey"\n'
        text += f'lease = {_LEASE}\ndatabase = "{database}"\n[[web.access]]\nusers = [{users}]\nrole = "live"\n'
        self.file.write_text(text, encoding="utf-8")
        words = command("web", "--config", str(self.file))
        self.member = Member(self.name, words, fleet.root, ready="ready: console at ")

    def invite(self, name: str) -> str:
        """Return the link by which somebody makes a passkey, as the operators' command line prints it."""
        done = run("web", "invite", name, "--config", str(self.file))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Person:
    """Somebody with a browser and a device, at one console.

    Args:
        name: by which they log in. principal: by which they sign.
    """

    def __init__(self, name: str, principal: str, opened: Tab, console: PressConsole) -> None:
        self.name, self.principal, self.console = name, principal, console
        self._opened = opened
        #: Of the passkey that signs, once it is enrolled.
        self.fingerprint = ""
        self.device = VirtualAuthenticator(opened.page)
        opened.page.set_default_timeout(PATIENCE)

    @property
    def page(self) -> Page:
        return self._opened.page

    @property
    def problems(self) -> list[str]:
        """What the browser complained about, but for three things.

        A key may only be ES256, which it is to; a console is killed; and the page of what waited asks for it again
        when it has begun, and the console has not yet heard of that from the bus: 404.
        """
        usual = ("pubKeyCredParams", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "(Not Found)")
        return [line for line in self._opened.problems if not any(word in line for word in usual)]

    def open(self, path: str) -> Page:
        """Open a page of the console."""
        self.page.goto(self.console.url + path)
        return self.page

    def press(self, name: str) -> None:
        """Press a button or follow a link."""
        role = "button" if self.page.get_by_role("button", name=name, exact=True).count() else "link"
        self.page.get_by_role(role, name=name, exact=True).click()  # type: ignore[arg-type]  # one of the two

    def arrive(self) -> None:
        """Make a passkey by the operators' invitation, which logs them in."""
        self.page.goto(self.console.invite(self.name))
        self.page.get_by_label("What do you call this device?").fill("laptop")
        self.page.get_by_role("button", name="Make a passkey and log in").click()
        self.page.wait_for_url(f"{self.console.url}/")

    def enrol(self) -> str:
        """Make another passkey that signs for the shop; return the line for the operators."""
        page = self.open("/account")
        page.get_by_role("link", name="Signing keys").first.click()
        page.get_by_label("Sites whose releases it signs").fill("shop")
        page.get_by_label("Your name in allowed_signers").fill(self.principal)
        page.get_by_role("button", name="Go on").click()
        page.locator("[data-part=press]").click()
        self.fingerprint = page.locator("code.key").inner_text()
        return page.get_by_label("Line").input_value()

    def sign(self, rollout: str, expected: str) -> None:
        """Sign a rollout with the passkey, by the page on which it waits; wait for what the page says then."""
        page = self.open("/approvals")
        page.locator(f'#approvals a[href$="/deploys/{rollout}/approve"]').click()
        page.locator(".mandate").wait_for()
        page.locator("[data-part=press]").click()
        page.get_by_text(expected).first.wait_for()


__all__ = ["PATIENCE", "Person", "PressConsole", "PressFleet"]
