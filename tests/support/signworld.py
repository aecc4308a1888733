"""A console with the pages on which people sign and enrol keys, served; beside it the page of `web.sign_origin`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from deploykit.names import parse_node_name
from deploykit.settings import Settings
from deploykit.settings.web import WebSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signaturerules import SignatureRules
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.shown import ProposalShown
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.live.events import EventRing
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.middleware import login_middleware
from deploykit.web.login.views import routes as login_routes
from deploykit.web.pages.render import environment, frame_of
from deploykit.web.pages.routes import error_handlers
from deploykit.web.pages.routes import routes as page_routes
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.signing.alone import sign_page
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.signing.views import offer_of
from deploykit.web.signing.views import routes as signing_routes
from tests.support.consoleworld import NOW
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries
from tests.support.served import serving

_PAGE = (
    '{% extends "base.html" %}{% block main %}<h1>Approve</h1><p id="server">{{ text }}</p>'
    '{% include "passkeysign.html" %}{% endblock %}'
)


@attrs.define(kw_only=True)
class SignWorld:
    """A console that runs, and what it got.

    Args:
        url: of the console; `sign` of the other origin, empty where there is none.
        bodies: of the mandates that wait, by rollout. text: what the server says beside them.
        posted: values that were posted, by rollout. lines: `allowed_signers` of this machine.
        asked: paths that the page of the other origin was asked for.
    """

    url: str = ""
    sign: str = ""
    bodies: dict[str, bytes] = attrs.Factory(dict)
    text: str = ""
    posted: list[tuple[str, str]] = attrs.Factory(list)
    notes: list[AuditView] = attrs.Factory(list)
    lines: list[str] = attrs.Factory(list)
    asked: list[str] = attrs.Factory(list)
    ledger: Ledger

    @property
    def allowed(self) -> AllowedSigners:
        """The keys that are distributed, under the rules of a node that lists only the origin where people sign."""
        origin = self.sign or self.url
        host = origin.partition("://")[2].partition(":")[0]
        rules = SignatureRules(origins=frozenset({origin}), rp_ids=frozenset({host}), verify_required=True)
        return attrs.evolve(AllowedSigners.parse("\n".join(self.lines)), rules=rules)

    def proposal(self, rollout: str) -> ProposalShown:
        """What waits."""
        return ProposalShown(
            rollout=rollout,
            site="shop",
            kind="deploy",
            not_before=NOW,
            not_after=NOW,
            body=base64.b64encode(self.bodies[rollout]).decode(),
        )

    def routes(self) -> list[Route]:
        """A page of a proposal, as short as it can be."""

        def show(request: Request) -> Response:
            found = self.proposal(str(request.path_params["id"]))
            values = {**attrs.asdict(frame_of(request), recurse=False), "query": request.query_params}
            page = environment().from_string(_PAGE)
            return HTMLResponse(page.render(values, signing=offer_of(request, found), text=self.text))

        def sign(request: Request) -> Response:
            self.posted.append((str(request.path_params["id"]), request.state.form.get("signature", "")))
            return HTMLResponse('<!doctype html><link rel="icon" href="/static/mark.svg"><p id=taken>taken')

        def no_stream(_request: Request) -> Response:
            return Response(status_code=204)  # for an EventSource: do not come back

        path = "/deploys/{id}/approve"
        return [
            Route("/api/v1/events", no_stream),
            Route(path, show, methods=["GET"]),
            Route(path, sign, methods=["POST"]),
        ]


@contextmanager
def sign_world(
    tmp_path: Path,
    *,
    elsewhere: bool = False,
    host: str = "localhost",
    actions: FixedActions | None = None,
    **web: object,
) -> Iterator[SignWorld]:
    """Serve a console at `HOST` of loopback, and, if `elsewhere`, the other page at `sign.localhost`.

    With `actions` the console's own page of a proposal takes the place of the short one.
    """
    ledger = Ledger.open(WebSettings(), tmp_path)
    world = SignWorld(ledger=ledger)
    with ExitStack() as stack:
        stack.callback(ledger.close)
        hook = _Later()
        world.url = stack.enter_context(serving(hook)).replace("localhost", host)
        if elsewhere:
            app = _alone(sign_page(world.url), world.asked)
            world.sign = stack.enter_context(serving(app)).replace("localhost", "sign.localhost")
        settings = attrs.evolve(
            WebSettings(url=world.url, sign_origin=world.sign),
            **web,  # type: ignore[arg-type]  # of the fields' own kinds
        )
        login = ConsoleLogin(settings, world.notes.append, ledger=ledger)
        stack.callback(login.close)
        desk = SigningDesk(
            settings,
            ledger.passkeys,
            ledger.once,
            ActionAudit(world.notes.append),
            signers=lambda: world.allowed,
            now=lambda: datetime.now(UTC),
        )
        context = ConsoleContext(
            settings=Settings(node=parse_node_name("ops-1"), web=settings),
            queries=FixedQueries(),
            events=EventRing(1),
            now=lambda: NOW,
            signing=desk,
            actions=actions.console if actions is not None else None,
        )
        hook.app = make_console(
            context,
            routes=[*login_routes(), *signing_routes(), *(world.routes() if actions is None else ()), *page_routes()],
            middleware=list(login_middleware(login)),
            handlers=error_handlers(),
        )
        yield world


class _Later:
    """An application that is there once its address is known."""

    app: Starlette

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        await self.app(scope, receive, send)  # type: ignore[arg-type]  # handed on as it came


def _alone(files: Mapping[str, bytes], asked: list[str]) -> Starlette:
    """The static files as contrib/nginx/sign-page.conf serves them."""
    types = {"html": "text/html", "mjs": "text/javascript", "css": "text/css"}
    conf = Path(__file__).parents[2] / "contrib" / "nginx" / "sign-page.conf"
    lines = [line.split(maxsplit=2) for line in conf.read_text().splitlines() if line.strip().startswith("add_header")]
    headers = {name: value.removesuffix(";").removesuffix(" always").strip('"') for _, name, value in lines}

    def show(request: Request) -> Response:
        name = str(request.path_params["name"]) or "index.html"
        asked.append(name)
        if name not in files:
            return PlainTextResponse("none\n", status_code=404)
        return Response(files[name], media_type=types[name.rpartition(".")[2]], headers=headers)

    return Starlette(routes=[Route("/{name:path}", show)])


__all__ = ["SignWorld", "sign_world"]
