"""A browser with a virtual authenticator, and pages on which it makes passkeys and signs with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from deploykit.messages import RolloutApproved
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.web.login.headers import SecurityHeadersMiddleware
from deploykit.web.pages.assets import static_file
from deploykit.wire import encode

if TYPE_CHECKING:
    from playwright.sync_api import Page

COMMIT = ObjectId("9d2c1f0e5b7a4c3d2e1f0a9b8c7d6e5f4a3b2c1d")


class VirtualAuthenticator:
    """Chromium's authenticator in software, for one page. It is touched, and knows the person unless set otherwise."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("WebAuthn.enable")
        self.id = self._add()

    def _add(self) -> str:
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        answer = self._session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        return str(answer["authenticatorId"])

    def verified(self, known: bool) -> None:
        """From now on it knows the person, or does not."""
        self._session.send("WebAuthn.setUserVerified", {"authenticatorId": self.id, "isUserVerified": known})

    @property
    def credentials(self) -> list[dict[str, Any]]:
        """The passkeys that it holds, as Chromium describes them."""
        answer = self._session.send("WebAuthn.getCredentials", {"authenticatorId": self.id})
        return list(answer["credentials"])

    def add(self, credential: dict[str, Any]) -> None:
        """Put a passkey in, from another one."""
        self._session.send("WebAuthn.addCredential", {"authenticatorId": self.id, "credential": credential})


def mandate_body(**values: Any) -> bytes:
    """The bytes of a mandate, as deploykit writes them; `values` are fields that differ."""
    now = datetime.now(UTC).replace(microsecond=0)
    usual = RolloutApproved(
        source="operator/desk",
        time=now,
        correlation_id="shop-1",
        site=SiteName("shop"),
        rollout="shop-1",
        ref=RefName("refs/tags/v1.4"),
        commit=COMMIT,
        nodes=tuple(NodeName(f"web{number}") for number in range(1, 6)),
        phases=("prepare", "activate"),
        allow_rollback=True,
        not_before=now - timedelta(minutes=1),
        not_after=now + timedelta(hours=2),
        requested_by="ann",
        reason="carts",
    )
    return encode(attrs.evolve(usual, **values)).body


def page_alone(html: str = "") -> Starlette:
    """An application with the console's static files, its headers, and one page."""

    def show(_request: Request) -> Response:
        return HTMLResponse(f"<!doctype html><title>t</title><body>{html}")

    return Starlette(
        routes=[Route("/", show), Route("/static/{name}", static_file)],
        middleware=[Middleware(SecurityHeadersMiddleware)],
    )


@contextmanager
def authenticator(page: Page) -> Iterator[VirtualAuthenticator]:
    """Give a page an authenticator."""
    yield VirtualAuthenticator(page)


__all__ = ["COMMIT", "VirtualAuthenticator", "authenticator", "mandate_body", "page_alone"]
