"""How Jenkins is asked for a build, and what each of its answers means. Pure.

Rules:

* Whether a job has parameters is found by asking: `buildWithParameters` first, `build` where Jenkins has no such thing
  for this job, or the reverse. An order changes its mind once, and fetches one fresh crumb: three requests at most.
* `Location` gives the number of the queue item, or shows where a redirect leads. Its host is not believed, and nothing
  follows it.
* `build` sends back to the project for a scan, and to a job that a plugin holds back: the caller looks which it was.
* Every answer says what to change, in the settings or in Jenkins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from typing import Final, Literal
from urllib.parse import urlencode, urljoin, urlsplit

import attrs

from deploykit.daemons.jenkins.jobpath import job_path
from deploykit.daemons.jenkins.lookup import MOST_NUMBER
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildAnswerKind
from deploykit.httpclient.reply import BUSY, HttpReply, NoReply
from deploykit.messages.base import one_line

Endpoint = Literal["buildWithParameters", "build"]
Login = Literal["", "token", "password"]

#: Names of a request that Jenkins itself reads.
RESERVED: Final = frozenset({"token", "delay", "json", "crumb", "Jenkins-Crumb", "statusCode", "redirectTo"})
#: Longest form that Jenkins' own web server takes by default.
MAX_FORM: Final = 200_000
#: Answers that are understood without their body.
BODILESS: Final = frozenset({201, 301, 302, 303, 307, 308})
_ITEM: Final = re.compile(r"/queue/item/([0-9]{1,18})(?:/(?:api/json)?)?\Z")
_LOGIN_PAGE: Final = re.compile(r"/(?:login|loginEntry|securityRealm|commenceLogin|j_\w+_check|oauth2?|saml)\b")
_OLD_JENKINS: Final = "is not parameterized"  # with 500, where newer ones answer 400
_NO_PARAMETERS: Final = "the job has no parameters, so deploykit's were dropped"
_ADD_PARAMETERS: Final = "add the parameters to the job; deploykit doctor --jenkins names them"


@attrs.frozen(kw_only=True, slots=True)
class Attempt:
    """One request for a build, and what was tried before it.

    Args:
        server: its name in the settings.
        base: the server's URL, ending in `/`.
        job: the job's name as the settings write it.
        parts: the parsed name.
        user: who logs in; empty: nobody.
        login: how.
        job_token: whether the job's own token is sent.
        wanted: whether the order has parameters.
        switched: whether the other endpoint was tried.
        renewed: whether a fresh crumb was fetched because Jenkins refused the last one.
    """

    server: str
    base: str
    job: str
    parts: tuple[str, ...]
    user: str = ""
    login: Login = ""
    job_token: bool = False
    wanted: bool = True
    endpoint: Endpoint = "buildWithParameters"
    switched: bool = False
    renewed: bool = False

    @property
    def url(self) -> str:
        """The job's URL, for people."""
        return f"{self.base}{job_path(self.parts)}/"

    @property
    def target(self) -> str:
        """Path of the request."""
        return f"{urlsplit(self.base).path}{job_path(self.parts)}/{self.endpoint}"

    def other(self) -> Attempt:
        """Return the attempt at the other endpoint."""
        other: Endpoint = "build" if self.endpoint == "buildWithParameters" else "buildWithParameters"
        return attrs.evolve(self, endpoint=other, switched=True)

    def answer(
        self,
        kind: BuildAnswerKind,
        text: str,
        remedy: str = "",
        *,
        retry: bool = False,
        item: int | None = None,
        after: float | None = None,
    ) -> BuildAnswer:
        """Return an answer about this attempt."""
        url = f"{self.base}queue/item/{item}/" if item is not None else self.url
        detail = one_line(text, 500)
        return BuildAnswer(
            kind=kind, queue_item=item, url=url, detail=detail, remedy=remedy, retry=retry, retry_after=after
        )


def form_of(attempt: Attempt, parameters: Mapping[str, str], *, token: str, delay: float | None) -> bytes | BuildAnswer:
    """Return the body of a request, or the refusal of what no request can hold. The token stands in no URL."""
    pairs = [(name, value) for name, value in parameters.items() if attempt.endpoint == "buildWithParameters"]
    for name, _ in pairs:
        if not name or name in RESERVED or not name.isprintable():
            remedy = "rename it in the job and in its entry in [[jenkins.jobs]]"
            return attempt.answer("refused", f"no parameter may be named {name[:60]!a}", remedy)
    if token:
        pairs.append(("token", token))
    if delay is not None:
        pairs.append(("delay", f"{delay:.0f}sec"))  # a bare number would be milliseconds
    body = urlencode(pairs, encoding="utf-8", errors="replace").encode()
    if len(body) > MAX_FORM:
        text = f"the parameters are {len(body)} bytes long, more than the {MAX_FORM} that Jenkins takes"
        return attempt.answer("refused", text, "send less in the parameters of its entry in [[jenkins.jobs]]")
    return body


def read_reply(
    reply: HttpReply | NoReply, attempt: Attempt, *, now: datetime, known: Container[int] = ()
) -> BuildAnswer | Attempt:
    """Return what an answer means, or the next attempt.

    Args:
        reply: what came.
        attempt: what was asked.
        now: aware, for `Retry-After`.
        known: queue items that earlier orders were given.
    """
    if isinstance(reply, NoReply):
        kind: BuildAnswerKind = "unanswered" if reply.sent else "unreachable"
        return attempt.answer(kind, reply.why, reply.remedy, retry=True)
    if reply.status == 201:
        return _created(reply, attempt, known)
    if reply.status in BUSY:
        text = f"{reply.status}: the server takes no requests now{_words(reply)}"
        after = reply.retry_after(now)
        return attempt.answer("busy", text, "look at Jenkins if it stays so", retry=True, after=after)
    row = _ROWS.get(reply.status)
    if row is not None:
        return row(reply, attempt)
    if reply.status >= 500 or reply.status < 200:
        return _failed(reply, attempt)
    text = f"{reply.status}: not an answer of Jenkins{_words(reply)}"
    return attempt.answer("refused", text, "check that url is Jenkins' own address, without a login page before it")


def queue_item_of(location: str) -> int | None:
    """Return the number of the queue item that a `Location` names; whatever host stands in it. None: it names none."""
    try:
        hit = _ITEM.search(urlsplit(location.strip()).path)
    except ValueError:
        return None
    number = int(hit[1]) if hit else 0
    return number if 0 < number <= MOST_NUMBER else None


def _created(reply: HttpReply, attempt: Attempt, known: Container[int]) -> BuildAnswer:
    item = queue_item_of(reply.header("Location"))
    dropped = attempt.wanted and attempt.endpoint == "build"
    if item is None:
        text = "queued; the answer names no queue item, so it cannot be followed"
    elif item in known:
        text = f"joined to item {item}, which waits in the queue already"
    else:
        text = f"queued as item {item}"
    if dropped:
        text = f"{text}; {_NO_PARAMETERS}"
    joined = item is not None and item in known
    return attempt.answer("joined" if joined else "queued", text, _ADD_PARAMETERS if dropped else "", item=item)


def _redirected(reply: HttpReply, attempt: Attempt) -> BuildAnswer:
    location = reply.header("Location").strip()
    item = queue_item_of(location)
    if reply.status == 303 and item is not None:
        return attempt.answer("joined", f"joined to item {item}, which waits in the queue already", item=item)
    try:
        there = urlsplit(urljoin(urljoin(attempt.base, attempt.target), location))
        port = there.port
    except ValueError:
        return attempt.answer("refused", f"{reply.status}: redirects to no URL", "look at the server and its proxy")
    where = reply.shown(f"{there.scheme}://{there.hostname}{f':{port}' if port else ''}")
    mine = urlsplit(attempt.base)
    if there.path.rstrip("/") == urlsplit(attempt.url).path.rstrip("/") and there.scheme == mine.scheme:
        return _sent_back(reply, attempt)
    if there.scheme == "https" and mine.scheme == "http" and there.hostname == mine.hostname:
        text, remedy = "the server redirects to https", f'set url = "{where}{mine.path}"'
    elif _LOGIN_PAGE.search(there.path):
        text = f"the server redirects to a login page at {where}"
        remedy = _login_remedy(attempt, "a single sign-on before Jenkins must let API tokens through")
    elif (there.hostname, port) != (mine.hostname, mine.port):
        text = f"the server redirects to another host, {where}; that is not followed"
        remedy = "set url to Jenkins' own address, if that is it"
    else:
        text = f"the server redirects to {reply.shown(there.path)}; that is not followed"
        remedy = "set url to Jenkins' own address"
    return attempt.answer("refused", f"{reply.status}: {text}", remedy)


def _sent_back(_: HttpReply, attempt: Attempt) -> BuildAnswer:
    """Return what a redirect to the job itself means. The host in it may be another name of the server."""
    if attempt.endpoint == "build":
        return attempt.answer("scanned", "a multibranch project: it looks for branches, and builds what is new")
    return queued_nothing(attempt)


def queued_nothing(attempt: Attempt) -> BuildAnswer:
    """Return the refusal of a job that is no multibranch project and sent us back to itself."""
    text = "Jenkins queued nothing: a plugin or a shutdown forbids new builds"
    return attempt.answer("refused", text, "look at Jenkins' log, and whether it prepares for shutdown")


def _bad_request(reply: HttpReply, attempt: Attempt) -> BuildAnswer | Attempt:
    if not attempt.switched:
        return attempt.other()
    text = f"400: Jenkins takes neither build nor buildWithParameters{_words(reply)}"
    remedy = "compare the parameters of its entry in [[jenkins.jobs]] with the job's (a choice takes only its choices)"
    return attempt.answer("refused", text, remedy)


def _unauthorized(_: HttpReply, attempt: Attempt) -> BuildAnswer:
    if not attempt.login:
        return attempt.answer("refused", "401: the server wants a login", _login_remedy(attempt, ""))
    secret = "API token" if attempt.login == "token" else "password"
    remedy = f"check user and {attempt.login}_file of [jenkins.servers.{attempt.server}]"
    if attempt.login == "token":
        remedy += "; the token is made at Jenkins under the user's Security, and is not the password"
    return attempt.answer("refused", f"401: the server refuses user {attempt.user} or the {secret}", remedy)


def _forbidden(reply: HttpReply, attempt: Attempt) -> BuildAnswer | Attempt:
    words = reply.text()
    if "crumb" in words.lower():
        if attempt.login != "token" and not attempt.renewed:
            return attrs.evolve(attempt, renewed=True)
        return attempt.answer("refused", "403: Jenkins wants a crumb (No valid crumb)", _crumb_remedy(attempt))
    if reply.header("X-Required-Permission") or "permission" in words.lower():
        permission = reply.shown(reply.header("X-Required-Permission").rpartition(".")[2], 60) or "Build"
        who = attempt.user or "anonymous"
        text = f"403: {who} has no permission for this{_words(reply)}"
        if not attempt.login:
            return attempt.answer("refused", text, _login_remedy(attempt, ""))
        return attempt.answer("refused", text, f"give {who} Job/{permission} on {attempt.job} in Jenkins")
    if attempt.job_token:
        text = f"403: Jenkins refuses the job's own token{_words(reply)}"
        remedy = f'compare token_file of the job with "Trigger builds remotely" in the settings of {attempt.job}'
        return attempt.answer("refused", text, remedy)
    who = attempt.user or "anonymous"
    remedy = f"give {who} Job/Build on {attempt.job}, or look at the proxy before Jenkins"
    return attempt.answer("refused", f"403: forbidden for {who}{_words(reply)}", remedy)


def _missing(_: HttpReply, attempt: Attempt) -> BuildAnswer | Attempt:
    if attempt.endpoint == "buildWithParameters" and not attempt.switched:
        return attempt.other()  # a multibranch project has only `build`
    who = attempt.user or "anonymous"
    text = f"404: no such job, or {who} may not see it"
    remedy = f"compare the name with {attempt.url}, or give {who} Job/Read in Jenkins (it hides what may not be read)"
    if attempt.parts[0] == "job":
        remedy = "write the name without the job/ of the address: FOLDER/JOB"
    return attempt.answer("missing", text, remedy)


def _no_post(reply: HttpReply, attempt: Attempt) -> BuildAnswer:
    allow = reply.shown(reply.header("Allow"), 60)
    text = f"405: the server takes no POST here{f' (it allows {allow})' if allow else ''}"
    remedy = "url is not Jenkins' own address, or a proxy before it turns POST into GET: correct either"
    return attempt.answer("refused", text, remedy)


def _disabled(_: HttpReply, attempt: Attempt) -> BuildAnswer:
    text = "409: the job is disabled, or not buildable"
    return attempt.answer("refused", text, "enable it in Jenkins, or take it out of [[jenkins.jobs]]")


def _too_large(reply: HttpReply, attempt: Attempt) -> BuildAnswer:
    text = f"{reply.status}: the request is too large for the server or its proxy"
    return attempt.answer("refused", text, "send less in the parameters, or raise the proxy's limit")


def _not_understood(reply: HttpReply, attempt: Attempt) -> BuildAnswer:
    text = f"{reply.status}: the server does not understand the request"
    return attempt.answer("refused", text, "check that url is Jenkins' own address")


def _failed(reply: HttpReply, attempt: Attempt) -> BuildAnswer | Attempt:
    if not attempt.switched and _OLD_JENKINS in reply.text():
        return attempt.other()
    text = f"{reply.status}: the server failed; a build may have been queued{_words(reply)}"
    return attempt.answer("unanswered", text, "look at Jenkins' log, and its proxy's", retry=True)


def _crumb_remedy(attempt: Attempt) -> str:
    if not attempt.login:
        return f"set user and token_file in [jenkins.servers.{attempt.server}]: an API token needs no crumb"
    if attempt.login == "token":
        return "a proxy takes the Authorization header away, or token_file holds the password: give an API token"
    return "set token_file instead of password_file: an API token needs no crumb"


def _login_remedy(attempt: Attempt, also: str) -> str:
    if attempt.login:
        return also or f"check user and {attempt.login}_file of [jenkins.servers.{attempt.server}]"
    return f"set user and token_file in [jenkins.servers.{attempt.server}]"


def _words(reply: HttpReply) -> str:
    """Return what the server wrote, bounded, to stand behind our own words."""
    words = reply.text()
    return f': "{words}"' if words else ""


#: Status -> what it means. The rest is in `read_reply`.
_ROWS: Final[Mapping[int, Callable[[HttpReply, Attempt], BuildAnswer | Attempt]]] = {
    **dict.fromkeys((301, 302, 303, 307, 308), _redirected),
    400: _bad_request,
    401: _unauthorized,
    403: _forbidden,
    404: _missing,
    405: _no_post,
    409: _disabled,
    **dict.fromkeys((413, 414, 431), _too_large),
    **dict.fromkeys((501, 505), _not_understood),
}

__all__ = [
    "BODILESS",
    "MAX_FORM",
    "RESERVED",
    "Attempt",
    "Endpoint",
    "Login",
    "form_of",
    "queue_item_of",
    "queued_nothing",
    "read_reply",
]
