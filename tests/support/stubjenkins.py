"""A strict stub of Jenkins' remote interface, as an HTTP server in a thread, with faults to switch on.

    with StubJenkins([StubJob(name="shop-tests")]) as jenkins:
        settings = jenkins.settings(tmp_path)          BuildServerSettings with user and API token
        ...
        jenkins.queue.wait_for_builds("shop-tests", 1)
        jenkins.fault("never", method="POST")          the next POST is carried out and never answered

What is strict: undefined parameters are dropped in silence, equal queued builds join (201 for `build`, 303 for
`buildWithParameters`), 400 for the wrong one of both, 405 for GET, 409 when disabled, 404 without Item.READ and 403
with only DISCOVER, a crumb for every POST without an API token, bound to its session; `tree=` is parsed. No real
Jenkins was at hand: the source of each rule is Jenkins' own.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from deploykit.settings.buildservers import BuildServerSettings
from deploykit.system.listening import hold_port
from tests.support.stubhttp import Fault, FaultKind, Reply, Seen, StubServer
from tests.support.stubjobs import FOUR, StubItem, StubJob, StubQueue

__all__ = ["FOUR", "Fault", "StubJenkins", "StubJob"]


class StubJenkins:
    """The server. Its jobs, queue, users and builds outlive `stop` and `start`.

    Args:
        users: name -> (API token, password).
        crumbs: cross-site request forgery protection.
        anonymous_reads: whether who does not log in has Overall/Read.
        path: context path.
        root_url: what Jenkins believes to be its own address, for Location and JSON; its real one when empty.
        tls: a server-side context.
    """

    def __init__(
        self,
        jobs: Sequence[StubJob],
        *,
        users: Mapping[str, tuple[str, str]] | None = None,
        crumbs: bool = True,
        anonymous_reads: bool = True,
        path: str = "/jenkins",
        root_url: str = "",
        tls: ssl.SSLContext | None = None,
        **queue: Any,
    ) -> None:
        self.queue = StubQueue(jobs, **queue)
        self.users = {"deploykit": ("canary-api-token", "canary-password")} if users is None else dict(users)
        self.crumbs = crumbs
        self.anonymous_reads = anonymous_reads
        self.path = path
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.sessions: dict[str, str] = {}
        self.sent_bytes = 0
        self.port = hold_port("127.0.0.1", self)
        self._root_url = root_url
        self._tls = tls
        self._server: StubServer | None = None
        self._thread = threading.Thread()

    def __enter__(self) -> StubJenkins:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.queue.close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{self.path}/"

    @property
    def root_url(self) -> str:
        """What it believes to be its address."""
        return self._root_url or self.url

    def settings(self, directory: Path, *, login: str = "token", **more: Any) -> BuildServerSettings:
        """Return the settings of a server of this address, with the secret of user `deploykit` in a file."""
        if login:
            secret = self.users["deploykit"][0 if login == "token" else 1]
            file = directory / f"jenkins-{login}"
            file.touch(0o600)
            file.write_text(f"{secret}\n")
            more = {"user": "deploykit", f"{login}_file": file, **more}
        return BuildServerSettings(**{"url": self.url, "timeout": 10.0, "connect_timeout": 5.0, **more})

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = StubServer(self.port, self, self._tls)
        self.queue.root_url = self.root_url
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="stub-jenkins", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Die: connections are cut, nothing listens. Queue and builds stay, as on Jenkins' disk."""
        if self._server is not None:
            self._server.end()
            self._thread.join(30)
            self._server = None

    def fault(self, kind: FaultKind, **how: Any) -> None:
        """Let the next matching requests go wrong; see `Fault`."""
        self.faults.append(Fault(kind=kind, **how))

    def forget_crumbs(self) -> None:
        """End all sessions, as a restart does."""
        self.sessions.clear()

    def posts(self) -> list[Seen]:
        """Return the requests for builds that arrived."""
        return [seen for seen in self.seen if seen.method == "POST"]

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return the fault that applies to a request, and count it."""
        for fault in self.faults:
            if fault.times and fault.method in ("", seen.method) and re.search(fault.path, seen.path):
                fault.times -= 1
                return fault
        return None

    # -- answers -----------------------------------------------------------------------------------------------------

    def reply(self, seen: Seen) -> Reply:
        """Return what Jenkins answers, after doing what was asked."""
        user, by_token, refused = self._who(seen)
        if refused:
            return _page(401, "Invalid password/token for user")
        parts = [unquote(part) for part in seen.path.removeprefix(self.path).strip("/").split("/")]
        if not seen.path.startswith(f"{self.path}/") or any("/" in part or part in (".", "..") for part in parts):
            return _page(400, "Ambiguous URI path separator")
        if seen.method == "POST" and self.crumbs and not by_token and not self._crumb_is_good(seen):
            return _page(403, "No valid crumb was included in the request")
        if not user and not self.anonymous_reads:
            return _denied("anonymous", "hudson.model.Hudson.Read", "Overall/Read")
        if parts[:1] == ["crumbIssuer"]:
            return self._crumb() if self.crumbs else _page(404, "Not Found")
        if parts == ["whoAmI", "api", "json"]:
            return _json({"name": user or "anonymous", "authenticated": bool(user), "anonymous": not user}, seen)
        if parts == ["api", "json"]:
            return _json({"_class": "hudson.model.Hudson", "mode": "NORMAL"}, seen)
        if parts[:1] == ["queue"]:
            return self._queue(parts[1:], seen, user)
        return self._job(parts, seen, user, by_token=by_token)

    def _who(self, seen: Seen) -> tuple[str, bool, bool]:
        """Return the user, whether they came with an API token, and whether the login is refused."""
        given = seen.headers.get("authorization", "")
        if not given:
            return "", False, False
        user, _, secret = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        known = self.users.get(user)
        if known is None or secret not in known:
            return "", False, True
        return user, secret == known[0], False

    def _crumb_is_good(self, seen: Seen) -> bool:
        cookie = seen.headers.get("cookie", "").partition("JSESSIONID.stub=")[2].partition(";")[0]
        return cookie in self.sessions and seen.headers.get("jenkins-crumb") == self.sessions[cookie]

    def _crumb(self) -> Reply:
        session, crumb = secrets.token_hex(8), secrets.token_hex(16)
        self.sessions[session] = crumb
        body = json.dumps({"_class": "x", "crumb": crumb, "crumbRequestField": "Jenkins-Crumb"}).encode()
        cookie = f"JSESSIONID.stub={session}; Path={self.path}; HttpOnly"
        return Reply(status=200, body=body, headers={"Content-Type": "application/json", "Set-Cookie": cookie})

    def _queue(self, parts: list[str], seen: Seen, user: str) -> Reply:
        if parts == ["api", "json"]:
            visible = [item for item in self.queue.waiting() if _may(user, item.job.readers)]
            return _json({"_class": "hudson.model.Queue", "items": [self._item(item) for item in visible]}, seen)
        if len(parts) == 4 and parts[0] == "item" and parts[2:] == ["api", "json"] and parts[1].isdecimal():
            found = self.queue.look_up(int(parts[1]))
            if found is not None and _may(user, found.job.readers):
                return _json(self._item(found), seen)
        return _page(404, "Not Found")

    def _item(self, item: StubItem) -> dict[str, object]:
        data: dict[str, object] = {
            "_class": f"hudson.model.Queue${'LeftItem' if item.left else 'WaitingItem'}",
            "id": item.id,
            "url": f"queue/item/{item.id}/",
            "why": None if item.left else item.why,
            "task": {"name": item.job.name.rpartition("/")[2], "url": f"{self.root_url}{item.job.path}/"},
            "actions": _actions(item.parameters),
        }
        if item.left:
            data["cancelled"] = item.cancelled
            build = item.build
            url = f"{self.root_url}{item.job.path}/{build.number}/" if build else ""
            data["executable"] = {"number": build.number, "url": url} if build else None
        return data

    def _job(self, parts: list[str], seen: Seen, user: str, *, by_token: bool) -> Reply:
        names = []
        while len(parts) >= 2 and parts[0] == "job":
            names.append(parts[1])
            parts = parts[2:]
        job = self.queue.jobs.get("/".join(names))
        if job is None or not _may(user, job.readers):
            if job is not None and user in job.discoverers:
                return _denied(user, "hudson.model.Item.Read", "Job/Read")
            return _page(404, "Not Found")
        if parts == ["api", "json"]:
            return _json(self._described(job), seen)
        if parts == ["build"] and job.kind != "folder":
            return self._build(job, seen, user, by_token=by_token)
        if parts == ["buildWithParameters"] and job.kind == "job":
            return self._build(job, seen, user, by_token=by_token, with_parameters=True)
        return _page(404, "Not Found")

    def _described(self, job: StubJob) -> dict[str, object]:
        url = f"{self.root_url}{job.path}/"
        definitions = [{"name": name, "type": "StringParameterDefinition"} for name in job.parameters or ()]
        holder = (
            [{"_class": "ParametersDefinitionProperty", "parameterDefinitions": definitions}] if definitions else []
        )
        builds = [
            {
                "number": build.number,
                "timestamp": int(build.begun * 1000),
                "url": f"{self.root_url}{job.path}/{build.number}/",
                "actions": _actions(build.parameters),
            }
            for build in reversed(job.builds)
        ]
        kinds = {"job": "FreeStyleProject", "folder": "Folder", "multibranch": "WorkflowMultiBranchProject"}
        data: dict[str, object] = {"_class": f"x.{kinds[job.kind]}", "url": url}
        if job.kind == "job":
            data |= {"buildable": not job.disabled, "property": holder, "actions": [], "builds": builds}
        return data

    def _build(self, job: StubJob, seen: Seen, user: str, *, by_token: bool, with_parameters: bool = False) -> Reply:
        given = dict(parse_qsl(seen.query, keep_blank_values=True)) | dict(seen.form)
        token_matches = bool(job.token) and given.get("token") == job.token
        if job.token and "token" in given and not token_matches:
            return _denied(user or "anonymous", "", "Invalid token provided.")
        if not token_matches:
            if not user or not _may(user, job.builders):
                return _denied(user or "anonymous", "hudson.model.Item.Build", "Job/Build")
            if seen.method != "POST" and not by_token:
                return Reply(status=405, headers={"Allow": "POST"}, body=b"Form post required")
        if seen.method != "POST" and not token_matches:
            return Reply(status=405, headers={"Allow": "POST"}, body=b"Form post required")
        if job.kind == "multibranch":
            return Reply(status=302, headers={"Location": f"{self.root_url}{job.path}/"})
        if job.disabled:
            return _page(409, f"{job.name} is not buildable")
        if with_parameters and job.parameters is None:
            return _page(400, f"{job.name} is not parameterized")
        if not with_parameters and job.parameters is not None:
            return _page(400, "Nothing is submitted")
        delay = re.fullmatch(r"(\d+)(sec|min|)", given.get("delay", "0"))
        if delay is None:
            return _page(400, "Invalid delay")
        seconds = float(delay[1]) * {"sec": 1.0, "min": 60.0, "": 0.001}[delay[2]]
        item, joined = self.queue.put(job, given, seconds if "delay" in given else None)
        status = 303 if joined and with_parameters else 201
        return Reply(status=status, headers={"Location": f"{self.root_url}queue/item/{item.id}/"})


def _may(user: str, allowed: frozenset[str] | None) -> bool:
    return allowed is None or user in allowed


def _actions(parameters: Mapping[str, str]) -> list[dict[str, object]]:
    values = [{"_class": "StringParameterValue", "name": name, "value": value} for name, value in parameters.items()]
    actions: list[dict[str, object]] = [{"_class": "CauseAction"}]
    return [*actions, {"_class": "ParametersAction", "parameters": values}] if values else actions


def _page(status: int, text: str) -> Reply:
    body = f"<html><head><title>Error</title></head><body><h2>HTTP {status}</h2><p>{text}</p></body></html>"
    return Reply(status=status, body=body.encode(), headers={"Content-Type": "text/html"})


def _denied(who: str, permission: str, text: str) -> Reply:
    reply = _page(403, f"{who} is missing the {text} permission" if permission else text)
    reply.headers["X-You-Are-Authenticated-As"] = who
    if permission:
        reply.headers["X-Required-Permission"] = permission
    return reply


def _json(data: dict[str, object], seen: Seen) -> Reply:
    query = dict(parse_qsl(seen.query))
    if "tree" in query:
        tree, rest = _parse_tree(query["tree"])
        if rest:
            return _page(500, "IllegalArgumentException: bad tree")
        data = {"_class": data.get("_class", "x"), **_pruned(data, tree)}
    return Reply(status=200, body=json.dumps(data).encode(), headers={"Content-Type": "application/json"})


def _parse_tree(text: str) -> tuple[dict[str, Any], str]:
    """Parse `a,b[c,d]{0,50}` and return name -> (inner tree, range), and what is left over."""
    tree: dict[str, Any] = {}
    while True:
        name = re.match(r"[A-Za-z_]+", text)
        if name is None:
            return tree, text or "empty"
        text, inner = text[name.end() :], None
        if text.startswith("["):
            inner, text = _parse_tree(text[1:])
            if not text.startswith("]"):
                return tree, text or "unclosed"
            text = text[1:]
        limits = re.match(r"\{(\d+),(\d+)\}", text)
        tree[name[0]] = (inner, (int(limits[1]), int(limits[2])) if limits else None)
        text = text[limits.end() :] if limits else text
        if not text.startswith(","):
            return tree, text
        text = text[1:]


def _pruned(data: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, (inner, limits) in tree.items():
        if name not in data:
            continue
        value = data[name]
        if limits and isinstance(value, list):
            value = value[slice(*limits)]
        if inner is not None and isinstance(value, list):
            value = [_pruned(entry, inner) for entry in value]
        elif inner is not None and isinstance(value, dict):
            value = _pruned(value, inner)
        out[name] = value
    return out
