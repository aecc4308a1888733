"""Check the build servers and jobs of the settings: one finding for each check, a way out for each failure.

Rules:

* Nothing is built, and nothing is asked of a job but its description: only GET requests that change nothing.
* A parameter that a job does not define is an error here, because Jenkins drops it in silence.
* Of a server of kind `http` only the connection and its files are tried: any request might start a build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.daemons.jenkins.jobpath import job_path, parse_job_name
from deploykit.daemons.jenkins.lookup import CORRELATION, SCANS, JobDescription, parse_object
from deploykit.errors import BuildServerError, InvalidName, SettingsError
from deploykit.httpclient.exchange import HttpServer, reach
from deploykit.httpclient.reply import HttpReply, NoReply
from deploykit.messages.base import one_line
from deploykit.operations.findings import Finding, Verdict
from deploykit.settings.buildservers import BuildServerSettings, is_loopback
from deploykit.settings.jenkins import JenkinsSettings, JobSettings
from deploykit.system.secretfile import read_secret, read_secret_text

_PATIENCE: Final = 10.0
_WHO: Final = "whoAmI/api/json?tree=name,authenticated"
_HOW_TO_ADD: Final = (
    "add them as String Parameters, or in the Jenkinsfile: parameters {{ {lines} }}; then run the job once by hand, "
    "because Jenkins learns the parameters of a Jenkinsfile from a run"
)
_FOLDER: Final = "Folder"


def examine_builds(
    settings: JenkinsSettings, on_finding: Callable[[Finding], object] = lambda _: None
) -> tuple[Finding, ...]:
    """Check each build server with its jobs, one after the other, and return all findings.

    Args:
        settings: `[jenkins]`, without problems.
        on_finding: called with each finding as it is made.

    Raises:
        SettingsError: there is no build server in the settings.
    """
    if not settings.servers:
        raise SettingsError("there is no build server in the settings", "add [jenkins.servers.NAME]")
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    for name, server in settings.servers.items():
        jobs = [job for job in settings.jobs if settings.server_of(job) == name]
        _ServerCheck(name, server, add).run(jobs)
    return tuple(findings)


class _ServerCheck:
    """The checks of one server."""

    def __init__(self, name: str, settings: BuildServerSettings, add: Callable[[Finding], None]) -> None:
        self._name = name
        self._settings = attrs.evolve(settings, timeout=min(settings.timeout, _PATIENCE))
        self._add_finding = add

    def run(self, jobs: Iterable[JobSettings]) -> None:
        """Make all findings of this server."""
        if not self._files(jobs):
            return
        parts = urlsplit(self._settings.url)
        if parts.scheme == "http" and not is_loopback(parts):
            self._add("TLS", "warning", "plain http", "tokens can be read on the way; use https://")
        if self._settings.kind == "http":
            self._reach()
            return
        server = JenkinsServer(self._name, self._settings)
        if self._login(server):
            for job in jobs:
                self._job(server, job)

    def _add(self, check: str, verdict: Verdict, text: str, remedy: str = "") -> None:
        self._add_finding(Finding(broker=self._name, check=check, verdict=verdict, text=text, remedy=remedy))

    # -- the server --------------------------------------------------------------------------------------------------

    def _files(self, jobs: Iterable[JobSettings]) -> bool:
        """Check that the files with secrets can be read; one of the server's own makes the rest pointless."""
        for job in jobs:
            if job.token_file is not None:
                self._readable(job.job, "token_file", job.token_file)
        files = self._settings.secret_files().items()
        readable = [self._readable("settings", setting, path) for setting, path in files]
        return all(readable)

    def _readable(self, check: str, setting: str, path: Path) -> bool:
        try:
            (read_secret_text if setting == "headers_file" else read_secret)(path, setting)
        except SettingsError as error:
            self._add(check, "error", error.problem, error.remedy or "correct the file")
            return False
        return True

    def _reach(self) -> None:
        settings = self._settings
        try:
            server = HttpServer.of(settings.url, ca_file=settings.ca_file, connect_timeout=settings.connect_timeout)
        except SettingsError as error:
            self._add("answers", "error", error.problem, error.remedy)
            return
        problem = reach(server, seconds=settings.timeout)
        if problem is not None:
            self._add("answers", "error", problem.why, problem.remedy)
            return
        self._add("answers", "ok", f"{server.shown} takes connections; nothing was sent, it might start a build")

    def _login(self, server: JenkinsServer) -> bool:
        """Return whether the server answers and accepts our login."""
        reply = self._answers(server)
        if reply is None:
            return False
        data = parse_object(reply)
        if data is None:
            return self._refused(reply.status)
        user = self._settings.user
        if data.get("authenticated") is not True:
            if user:
                self._add("login", "error", f"Jenkins does not take {user} for logged in", "look at a proxy before it")
            else:
                self._add("login", "note", "none", "set user and token_file, unless everybody may start builds")
            return not user
        self._add("login", "ok", f"accepted as {one_line(str(data.get('name')), 100)}")
        if self._settings.password_file is not None:
            self._add("login", "note", "with a password", "an API token can be revoked by itself, and needs no crumb")
        return True

    def _answers(self, server: JenkinsServer) -> HttpReply | None:
        """Return Jenkins' answer to who we are: JSON, 401 or 403; None where it is something else."""
        try:
            reply = server.look(_WHO, deadline=self._settings.timeout)
        except SettingsError as error:
            reply = NoReply(sent=False, why=error.problem, remedy=error.remedy)
        if isinstance(reply, NoReply):
            self._add("answers", "error", reply.why, reply.remedy)
            return None
        if reply.status not in (401, 403) and (reply.status != 200 or parse_object(reply) is None):
            what = "a redirect, which is not followed" if 300 <= reply.status < 400 else "not an answer of Jenkins"
            self._add("answers", "error", f"{reply.status}: {what}", "set url to Jenkins' own address")
            return None
        self._add("answers", "ok", _version(reply))
        return reply

    def _refused(self, status: int) -> bool:
        settings = self._settings
        if not settings.user:
            self._add("login", "error", f"{status}: the server wants a login", "set user and token_file")
        elif status == 401:
            which = "token_file" if settings.token_file is not None else "password_file"
            self._add("login", "error", f"401: {settings.user} is refused", f"check user and {which}")
        else:
            self._add("login", "error", f"403: {settings.user} may not read", f"give {settings.user} Overall/Read")
        return False

    # -- its jobs ----------------------------------------------------------------------------------------------------

    def _job(self, server: JenkinsServer, job: JobSettings) -> None:
        try:
            where = f"{self._settings.url.rstrip('/')}/{job_path(parse_job_name(job.job))}/"
            found = server.describe(job.job, deadline=self._settings.timeout)
        except (BuildServerError, InvalidName) as error:
            self._add(job.job, "error", error.problem, error.remedy)
            return
        if found.kind.endswith(SCANS):
            self._multibranch(job, where)
        elif job.multibranch:
            self._add(job.job, "error", f"{where} is no multibranch project", "take multibranch out of its entry")
        elif found.kind == _FOLDER:
            self._add(job.job, "error", f"{where} is a folder", "name a job in it: FOLDER/JOB")
        elif found.buildable is False:
            self._add(job.job, "error", f"{where} is disabled", "enable it in Jenkins")
        else:
            self._parameters(job, found, where)

    def _multibranch(self, job: JobSettings, where: str) -> None:
        if job.multibranch:
            text = f"{where} is a multibranch project; its branches define the parameters"
            self._add(job.job, "ok", text)
            return
        text = f"{where} is a multibranch project: a push makes it look for branches, and it builds what is new"
        self._add(job.job, "warning", text, "set multibranch = true, and the branch of the push is built")

    def _parameters(self, job: JobSettings, found: JobDescription, where: str) -> None:
        """Compare what a build sends with what the job defines: for a push or for a revision, whichever fits better."""
        sent = [job.templates(revision=revision) for revision in ((True,) if job.projects else (False, True))]
        missing = min(([name for name in names if name not in found.parameters] for names in sent), key=len)
        if not missing:
            count = f"defines all {len(sent[0])} parameters" if sent[0] else "is sent no parameters"
            self._add(job.job, "ok", f"{where} {count}")
            return
        what = "has no parameters" if not found.parameters else f"does not define {', '.join(missing)}"
        text = f"{where} {what}: Jenkins drops what a job does not define"
        if CORRELATION in missing:
            text += ", and without the correlation id a lost answer means a second build"
        lines = " ".join(f"string(name: '{name}', defaultValue: '')" for name in missing)
        self._add(job.job, "error", text, _HOW_TO_ADD.format(lines=lines))


def _version(reply: HttpReply) -> str:
    version = reply.shown(reply.header("X-Jenkins"), 40)
    return f"Jenkins {version}" if version else "Jenkins, of an unknown version"


__all__ = ["examine_builds"]
