"""A console with a login, two names in its password file, and a clock that tests turn."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlencode

import attrs
import bcrypt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from deploykit.settings.web import WebAccessSettings, WebSettings
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.middleware import login_middleware
from deploykit.web.login.views import routes
from deploykit.web.pages.routes import routes as page_routes
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.requests import viewer_of
from tests.support.asgi import Asked, Asker
from tests.support.ledgers import ledger_in

PASSWORDS = {"ann": "correct horse", "bob": "battery"}
#: When a clock of tests shows 0.
EPOCH = 1_800_000_000.0
OWN = {"sec-fetch-site": "same-origin"}


@attrs.define(kw_only=True)
class Clock:
    """Monotonic seconds that stand still until a test turns them."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@attrs.frozen(kw_only=True)
class LoginWorld:
    """A console to ask, its login, what it noted, and its clock."""

    asker: Asker
    login: ConsoleLogin
    notes: list[AuditView]
    clock: Clock
    file: Path
    ledger: Ledger

    def log_in(self, name: str = "ann", password: str | None = None, *, wanted: str = "/", **headers: str) -> Asked:
        """Return the answer to the form of the login."""
        body = form(name=name, password=PASSWORDS.get(name, "") if password is None else password, next=wanted)
        return self.asker.post("/login", body, {**OWN, **headers})

    def cookie(self, name: str = "ann") -> dict[str, str]:
        """Return the header of a browser that has logged in."""
        (line,) = self.log_in(name).cookies
        return {"cookie": line.partition(";")[0]}

    def token(self, cookie: dict[str, str]) -> str:
        """Return the token in the forms of a browser that has logged in."""
        found = re.search(r"token=(\S+)", self.asker.get("/", cookie).text)
        assert found is not None
        return found[1]


def form(**fields: str) -> bytes:
    """Return the body of a form."""
    return urlencode(fields).encode()


def write_passwords(file: Path, **passwords: str) -> None:
    """Write a password file, with the cheapest hashes that bcrypt has."""
    lines = [f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()}\n" for name, text in passwords.items()]
    file.write_text("# who may log in\n\n" + "".join(lines))
    file.chmod(0o600)


def show(request: Request) -> Response:
    viewer = viewer_of(request)
    roles = ",".join(f"{grant.sites}={grant.role}" for grant in viewer.grants)
    return PlainTextResponse(f"{viewer.name} {roles} token={request.state.identity.token}")


async def change(request: Request) -> Response:
    return PlainTextResponse((await request.body()).decode())


def streaming(turn: Callable[[], None]) -> Callable[[Request], Response]:
    """Return a view whose stream never ends by itself; `turn` is called before each part."""

    def view(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                turn()
                yield b": \n\n"

        return StreamingResponse(parts(), media_type="text/event-stream")

    return view


def login_world(tmp_path: Path, *, mode: str = "password", **values: object) -> LoginWorld:
    """Return a console whose settings `[web]` have `values`."""
    file = tmp_path / "passwords"
    if not file.exists():
        write_passwords(file, **PASSWORDS)
    clock, notes = Clock(), list[AuditView]()
    settings = attrs.evolve(
        WebSettings(login=mode, password_file=file),  # type: ignore[arg-type]  # one of the five
        **values,  # type: ignore[arg-type]  # of the fields' own kinds
    )
    # Seconds since 1970 of the ledger go with the clock that tests turn.
    ledger = ledger_in(tmp_path, lambda: EPOCH + clock.now)
    login = ConsoleLogin(settings, notes.append, ledger=ledger, clock=clock)

    def later() -> None:
        clock.now += 1

    views = [
        Route("/", show),
        Route("/sites/{site}", show),
        Route("/api/v1/sites", show),
        Route("/change", change, methods=["POST"]),
        Route("/api/v1/change", change, methods=["POST"]),
        Route("/api/v1/events", streaming(later)),
    ]
    app = Starlette(
        routes=[*views, *routes(), *page_routes()],
        middleware=list(login_middleware(login, open_paths={"/hook/a"})),
    )
    return LoginWorld(asker=Asker(app=app), login=login, notes=notes, clock=clock, file=file, ledger=ledger)


def access(*users: str, sites: tuple[str, ...] = ("*",), role: str = "look") -> WebAccessSettings:
    """Return one `[[web.access]]`."""
    return WebAccessSettings(users=users, sites=sites, role=role)  # type: ignore[arg-type]  # one of the four
