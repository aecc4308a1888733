"""A console whose people log in at a provider that the tests run, and a browser without script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import httpx

from deploykit.settings.oidc import OidcSettings
from tests.support.asgi import Asked
from tests.support.loginworld import LoginWorld, login_world
from tests.support.oidcprovider import CLIENT, SECRET, ProviderState, oidc_provider

URL = "https://deploy.example.org"
COOKIE = "__Host-deploykit-oidc"
SESSION = "__Host-deploykit"


@attrs.frozen(kw_only=True)
class OidcWorld:
    """A console and its provider."""

    console: LoginWorld
    provider: ProviderState
    jar: dict[str, str] = attrs.field(factory=dict)

    def ask(self, path: str, **headers: str) -> Asked:
        """Return the answer to our browser, which keeps cookies."""
        sent = {"cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items())} if self.jar else {}
        answer = self.console.asker.get(path, {**sent, **headers})
        for line in answer.cookies:
            name, _, rest = line.partition("=")
            value = rest.partition(";")[0]
            self.jar.pop(name, None)
            if value:
                self.jar[name] = value
        return answer

    def begin(self, wanted: str = "/") -> str:
        """Return where the console sends the browser."""
        answer = self.ask(f"/login/oidc?next={wanted}")
        assert answer.status == 303, answer.text
        return answer.headers["location"]

    def come_back(self, where: str) -> str:
        """Return the path with which the provider sends the browser back."""
        answer = httpx.get(where, follow_redirects=False, trust_env=False, timeout=60)
        assert answer.status_code == 302, answer.text
        parts = urlsplit(answer.headers["location"])
        assert f"{parts.scheme}://{parts.netloc}" == URL
        return f"{parts.path}?{parts.query}"

    def log_in(self, wanted: str = "/") -> Asked:
        """Return the console's answer when the browser comes back."""
        return self.ask(self.come_back(self.begin(wanted)), **{"sec-fetch-site": "cross-site"})


@contextmanager
def oidc_world(tmp_path: Path, **oidc: object) -> Iterator[OidcWorld]:
    """Return a console whose settings `[web.oidc]` have `oidc`."""
    with oidc_provider() as provider:
        secret = tmp_path / "client-secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        settings = OidcSettings(issuer=provider.issuer, client_id=CLIENT, client_secret_file=secret)
        settings = attrs.evolve(settings, **oidc)  # type: ignore[arg-type]  # of the fields' own kinds
        assert settings.problems() == ()
        console = login_world(tmp_path, mode="oidc", url=URL, oidc=settings)
        console = attrs.evolve(console, asker=attrs.evolve(console.asker, host="deploy.example.org"))
        try:
            yield OidcWorld(console=console, provider=provider)
        finally:
            console.login.close()
            console.ledger.close()


__all__ = ["COOKIE", "SESSION", "URL", "OidcWorld", "oidc_world"]
