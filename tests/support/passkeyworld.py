"""A console that takes passkeys, and what our script asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from deploykit.settings.oidc import OidcSettings
from deploykit.web.login.inviting import make_invitation
from deploykit.web.login.passkeys import INVITATION
from tests.support.asgi import Asked
from tests.support.loginpasskeys import SoftwareDevice
from tests.support.loginworld import OWN, LoginWorld, form, login_world

URL = "https://deploy.example.org"
SESSION = "__Host-deploykit"


@attrs.frozen(kw_only=True)
class PasskeyWorld:
    """A console and our script in a browser."""

    console: LoginWorld

    def post(self, path: str, cookie: str = "", **fields: str) -> Asked:
        """Return the answer to our script."""
        headers = {**OWN, **({"cookie": cookie} if cookie else {})}
        return self.console.asker.post(path, form(**fields), headers)

    def invite(self, name: str = "ann") -> str:
        """Return the path of an invitation."""
        code = self.console.ledger.once.put(INVITATION, name, 24 * 3600)
        return f"/invite/{code}"

    def accept(self, device: SoftwareDevice, path: str, label: str = "laptop") -> Asked:
        """Make a passkey by an invitation."""
        begun = self.post(path, step="begin")
        if begun.status != 200:
            return begun
        return self.post(
            path, step="finish", id=begun.json()["id"], label=label, answer=device.register(options(begun))
        )

    def known(self, name: str = "ann", **device: Any) -> SoftwareDevice:
        """Return a device whose passkey the console knows."""
        made = SoftwareDevice(**device)
        answer = self.accept(made, self.invite(name))
        assert answer.status == 200, answer.text
        return made

    def log_in(self, device: SoftwareDevice, wanted: str = "/", **changed: str) -> Asked:
        """Log in by a device."""
        begun = self.console.asker.get("/login/passkey")
        answer = device.log_in(options(begun), **changed)
        return self.post("/login/passkey", id=begun.json()["id"], answer=answer, next=wanted)

    def cookie(self, device: SoftwareDevice) -> str:
        """Log in by a device, and return the cookie."""
        (line,) = self.log_in(device).cookies
        return line.partition(";")[0]


def options(begun: Asked) -> dict[str, Any]:
    """Return what the browser is asked for."""
    assert begun.status == 200, begun.text
    found: dict[str, Any] = begun.json()["options"]
    return found


def passkey_world(tmp_path: Path, *, mode: str = "passkey", **values: object) -> PasskeyWorld:
    """Return a console that takes passkeys, alone or beside another login."""
    more: dict[str, object] = {"passkeys": True} if mode != "passkey" else {}
    if mode == "oidc":
        more["oidc"] = OidcSettings(issuer="https://id.example.org", client_id="x")
    console = login_world(tmp_path, mode=mode, url=URL, **{**more, **values})
    return PasskeyWorld(console=attrs.evolve(console, asker=attrs.evolve(console.asker, host="deploy.example.org")))


__all__ = ["SESSION", "URL", "PasskeyWorld", "make_invitation", "options", "passkey_world"]
