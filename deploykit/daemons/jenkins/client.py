"""One Jenkins: asked for builds, looked at for what became of them. What its answers mean is in `server` and `lookup`.

Rules:

* Every request goes to the server of the settings. A URL in an answer is shown and never fetched.
* An order asks three times at most (`server`), fetches a crumb twice at most, and all of them end by its deadline.
* No token is in an error, a log line or a `repr`, also where the server sends it back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import attrs

from deploykit.daemons.jenkins.jobpath import job_path, parse_job_name
from deploykit.daemons.jenkins.login import JenkinsLogin
from deploykit.daemons.jenkins.lookup import (
    BUILDS,
    CORRELATION,
    ITEM,
    JOB,
    QUEUE,
    SCANS,
    JobDescription,
    build_in_job,
    describe,
    item_in_queue,
    parse_object,
    queue_state,
    reaches_back,
)
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildAnswerKind, BuildOrder, QueueState
from deploykit.daemons.jenkins.server import BODILESS, Attempt, Endpoint, form_of, queued_nothing, read_reply
from deploykit.errors import BuildServerError, InvalidName, MayNotLook, SettingsError
from deploykit.httpclient.exchange import KEPT, HttpServer, exchange
from deploykit.httpclient.reply import BUSY, HttpReply, HttpRequest, NoReply
from deploykit.settings.buildservers import FORM_BODY, BuildServerSettings

#: Most of a queue or a job's builds that is read.
_MOST_JSON: Final = 4 << 20
_REMEMBERED: Final = 1000


class JenkinsServer:
    """One Jenkins, as `BuildServer`.

    Args:
        name: of the server in the settings.
        settings: how to reach it; `settings.problems()` is empty.
        now: the time of day, for `Retry-After`.
    """

    def __init__(
        self, name: str, settings: BuildServerSettings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._name = name
        self._settings = settings
        self._base = settings.url.rstrip("/") + "/"
        self._path = urlsplit(self._base).path
        self._login = JenkinsLogin(settings)
        self._now = now
        self._lock = threading.Lock()
        self._server: HttpServer | None = None
        self._endpoints: OrderedDict[tuple[str, ...], Endpoint] = OrderedDict()
        self._items: OrderedDict[int, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"JenkinsServer({self._name!r}, {self._base!r})"

    # -- BuildServer -------------------------------------------------------------------------------------------------

    def start(self, order: BuildOrder, *, deadline: float) -> BuildAnswer:
        """Ask for a build; see `BuildServer.start`."""
        end = monotonic() + deadline
        try:
            parts = parse_job_name(order.job)
        except InvalidName as error:
            return BuildAnswer(kind="refused", detail=error.problem, remedy=error.remedy)
        attempt = self._first_attempt(order, parts)
        kind: BuildAnswerKind = "refused"  # a file that is being replaced is there again in a moment
        try:
            token = self._login.secret(order.token_file, "token_file of the job") if order.token_file else ""
            kind = "unreachable"  # what is the server's own concerns all of its jobs
            answer = self._ask(order, attempt, token, end)
        except SettingsError as error:
            answer = attempt.answer(kind, error.problem, error.remedy, retry=True)
        return self._clean(answer)

    def find(self, order: BuildOrder, *, deadline: float) -> BuildAnswer | None:
        """Look for an order; see `BuildServer.find`."""
        end = monotonic() + deadline
        attempt = self._first_attempt(order, parse_job_name(order.job))
        if not order.correlation_id:  # that of every build which a person started
            raise MayNotLook("the order has no correlation id to look for")
        # The queue first: an item that becomes a build between the two looks is seen in the second.
        queue = self._get(f"queue/api/json?{QUEUE}", end, kept=_MOST_JSON)
        seen = parse_object(queue) if isinstance(queue, HttpReply) and queue.status == 200 else None
        if seen is not None:
            item = item_in_queue(seen, order.correlation_id, attempt.parts, order.parameters)
            if item is not None:
                return self._clean(attempt.answer("queued", f"found in the queue as item {item}", item=item))
        data = self._looked(self._get(f"{job_path(attempt.parts)}/api/json?{BUILDS}", end, kept=_MOST_JSON), attempt)
        build = build_in_job(data, order.correlation_id, order.parameters)
        if build is not None:
            answer = attempt.answer("queued", f"found as build {build[0]}")
            return self._clean(attrs.evolve(answer, number=build[0], url=build[1] or answer.url))
        if CORRELATION not in describe(data).parameters:
            problem = f"the job has no parameter {CORRELATION}: a build cannot be recognised"
            raise MayNotLook(problem, "add the parameter to the job")
        self._looked(queue, attempt)
        if order.since and not reaches_back(data, order.since):
            raise MayNotLook(
                f"{order.job} at {self._name} shows no build as old as the request: it may be an older one"
            )
        return None

    def follow(self, queue_item: int, *, order: BuildOrder, deadline: float) -> QueueState:
        """Return where a queue item is; see `BuildServer.follow`."""
        reply = self._get(f"queue/item/{queue_item}/api/json?{ITEM}", monotonic() + deadline)
        state = queue_state(reply, order.correlation_id, parse_job_name(order.job))
        return attrs.evolve(state, why=self._login.hide(state.why), url=self._login.hide(state.url))

    # -- for doctor --------------------------------------------------------------------------------------------------

    def look(self, path: str, *, deadline: float) -> HttpReply | NoReply:
        """Return the answer to a GET below the server's URL, for checks.

        Raises:
            SettingsError: a file with a secret, or `ca_file`, cannot be used.
        """
        return self._exchange(self._get_request(path), monotonic() + deadline)

    def describe(self, job: str, *, deadline: float) -> JobDescription:
        """Return what Jenkins says about a job, without building it.

        Raises:
            InvalidName: it is not the name of a job.
            MayNotLook: there is no such job, or it is hidden from us.
            BuildServerError: the server does not answer.
        """
        parts = parse_job_name(job)
        attempt = self._attempt(job, parts)
        reply = self._get(f"{job_path(parts)}/api/json?{JOB}", monotonic() + deadline, kept=_MOST_JSON)
        return describe(self._looked(reply, attempt))

    # -- one order ---------------------------------------------------------------------------------------------------

    def _attempt(self, job: str, parts: tuple[str, ...]) -> Attempt:
        login = self._login
        return Attempt(
            server=self._name, base=self._base, job=job, parts=parts, user=self._settings.user, login=login.kind
        )

    def _first_attempt(self, order: BuildOrder, parts: tuple[str, ...]) -> Attempt:
        wanted = bool(order.parameters)
        with self._lock:
            endpoint = self._endpoints.get(parts, "buildWithParameters" if wanted else "build")
        return attrs.evolve(
            self._attempt(order.job, parts),
            wanted=wanted,
            endpoint=endpoint,
            job_token=order.token_file is not None,
        )

    def _ask(self, order: BuildOrder, attempt: Attempt, token: str, end: float) -> BuildAnswer:
        """Return the answer to an order, after three requests at most: two endpoints, and one stale crumb."""
        while True:
            form = form_of(attempt, order.parameters, token=token, delay=self._settings.delay)
            if isinstance(form, BuildAnswer):
                return form
            reply = self._post(attempt, form, end)
            with self._lock:
                outcome = read_reply(reply, attempt, now=self._now(), known=self._items)
            if isinstance(outcome, Attempt):
                attempt = outcome
                continue
            if outcome.kind == "scanned" and self._is_job(attempt, end):
                return queued_nothing(attempt)
            self._remember(attempt, outcome)
            return outcome

    def _is_job(self, attempt: Attempt, end: float) -> bool:
        """Return whether what sent us back is a job, and no project that looks for branches, as far as we may see."""
        try:
            found = self.describe(attempt.job, deadline=end - monotonic())
        except BuildServerError:
            return False
        return found.buildable is not None and not found.kind.endswith(SCANS)

    def _post(self, attempt: Attempt, form: bytes, end: float) -> HttpReply | NoReply:
        crumb = self._login.crumb(lambda request: self._exchange(request, end), fresh=attempt.renewed)
        if isinstance(crumb, NoReply):
            return crumb
        headers = (("Content-Type", FORM_BODY), ("Accept", "*/*"), *self._login.headers(), *crumb)
        request = HttpRequest(method="POST", target=attempt.target, headers=headers, body=form)
        return self._exchange(request, end, bodiless=BODILESS)

    def _remember(self, attempt: Attempt, answer: BuildAnswer) -> None:
        """Keep which endpoint a job has, and which queue items there are, for the next orders."""
        if not answer.accepted:
            return
        with self._lock:
            self._endpoints[attempt.parts] = attempt.endpoint
            self._endpoints.move_to_end(attempt.parts)
            if answer.queue_item is not None:
                self._items[answer.queue_item] = None
            for kept in (self._endpoints, self._items):
                while len(kept) > _REMEMBERED:
                    kept.popitem(last=False)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _get_request(self, path: str) -> HttpRequest:
        headers = (("Accept", "application/json"), *self._login.headers())
        return HttpRequest(method="GET", target=f"{self._path}{path}", headers=headers)

    def _get(self, path: str, end: float, *, kept: int = KEPT) -> HttpReply | NoReply:
        try:
            return self._exchange(self._get_request(path), end, kept=kept)
        except SettingsError as error:
            return NoReply(sent=False, why=error.problem, remedy=error.remedy)

    def _exchange(
        self, request: HttpRequest, end: float, *, kept: int = KEPT, bodiless: Collection[int] = ()
    ) -> HttpReply | NoReply:
        seconds = min(self._settings.timeout, end - monotonic())
        if seconds <= 0:
            return NoReply(sent=False, why=f"no time was left to ask {self._name}", remedy="raise the deadline")
        settings = self._settings
        if self._server is None:
            self._server = HttpServer.of(
                settings.url, ca_file=settings.ca_file, connect_timeout=settings.connect_timeout
            )
        reply = exchange(self._server, request, seconds=seconds, kept=kept, bodiless=bodiless)
        return self._login.scrub(reply)

    def _looked(self, reply: HttpReply | NoReply, attempt: Attempt) -> dict[str, object]:
        """Return the JSON of an answer to a look.

        Raises:
            MayNotLook: Jenkins shows us nothing.
            BuildServerError: it does not answer now.
        """
        hide = self._login.hide
        if isinstance(reply, NoReply):
            raise BuildServerError(hide(reply.why), reply.remedy)
        data = parse_object(reply) if reply.status == 200 else None
        if data is not None:
            return data
        if reply.status == 200 and not reply.whole and len(reply.body) < _MOST_JSON:
            raise BuildServerError("the answer broke off", "look at the server and its proxy")
        if reply.status >= 500 or reply.status in BUSY:
            raise BuildServerError(f"the server answers {reply.status}", "look at Jenkins' log")
        as_build = read_reply(reply, attrs.evolve(attempt, switched=True, renewed=True), now=self._now())
        if isinstance(as_build, BuildAnswer) and reply.status in (401, 403, 404):
            raise MayNotLook(hide(as_build.detail), as_build.remedy.replace("Job/Build", "Job/Read"))
        text = f"{reply.status}: not what Jenkins says about a job or its queue"
        raise MayNotLook(text, "check that url is Jenkins' own address")

    def _clean(self, answer: BuildAnswer) -> BuildAnswer:
        hide = self._login.hide
        return attrs.evolve(answer, detail=hide(answer.detail), remedy=hide(answer.remedy), url=hide(answer.url))


__all__ = ["JenkinsServer"]
