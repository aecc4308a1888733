"""stomp-jenkins, the build daemon: `/etc/stomp-jenkins/stomp-jenkins.yaml` -> `[jenkins]`.

Three forms of its jobs: `REPO: {project, ticket, ignore_refs}`; several in one repository, by the Subversion project,
`REPO: {SUBPROJECT: {…}}`; and in the first version, at the top, `JOB: TICKET`, for a repository of the same name.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic
from deploykit.config.refpattern import compile_ref_pattern
from deploykit.errors import InvalidName, SettingsError
from deploykit.names import RepoName, parse_repo_name, path_component
from deploykit.settings.buildservers import BuildServerSettings, is_loopback
from deploykit.settings.jenkins import JobSettings

#: The name of the only build server.
SERVER: Final = "main"
#: Stands for its URL where the old settings have none that can be used. Such a host can never exist.
NO_URL: Final = "https://write-the-url-here.invalid/"
_TICKET_NOTE: Final = "the job's own token, in a file of its own, mode 0600"
_IGNORE: Final = "read by google-re2 (`deploykit[re2]`). Where it was absent nothing was built; all refs are now"

ROWS: Final = (
    *RSERVER_ROWS,
    *CONNECTOR_ROWS,
    Row(old="listen-topic", new="topics.source"),
    Row(old="report-topic", new="topics.notices.jenkins", note="with `legacy = true`; builds go to `topics.build`"),
    Row(old="jenkins-url", new="jenkins.servers.NAME.url"),
    Row(old="jenkins-projects.REPO.project", new="jenkins.jobs[].job", note="`%20` and a blank are the same"),
    Row(old="jenkins-projects.REPO.ticket", new="jenkins.jobs[].token_file", note=_TICKET_NOTE),
    Row(old="jenkins-projects.REPO.ignore_refs", new="jenkins.jobs[].ignore_refs", note=_IGNORE),
    Row(
        old="jenkins-projects.REPO.SUBPROJECT.project",
        new="jenkins.jobs[].job",
        note="with `projects = [SUBPROJECT]`",
    ),
    Row(old="jenkins-projects.REPO.SUBPROJECT.ticket", new="jenkins.jobs[].token_file", note=_TICKET_NOTE),
    Row(old="jenkins-projects.REPO.SUBPROJECT.ignore_refs", new="jenkins.jobs[].ignore_refs", note=_IGNORE),
    Row(old="log-file", note="a daemon logs to standard error, for the journal; how is in [log]"),
    Row(old="JOB", new="jenkins.jobs[].token_file", note="of the first version: repository and job of that name"),
)
_TOP: Final = frozenset(row.old.partition(".")[0] for row in ROWS) - {"JOB"}


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "listen-topic", "source")
    put_topic(table, "report-topic", "notices", "jenkins")
    server = _server(table)
    for repo, below in table.tables("jenkins-projects"):
        if "project" in below.data or not _has_tables(below):
            _job(below, server, repo, "")
            below.finish()
            continue
        for project, job in below.items():
            _job(job, server, repo, project)
            job.finish()
    if "jenkins-projects" not in file.data:
        for name in table.rest():
            if name not in _TOP and (ticket := table.text(name)) is not None:
                _put_job(table, server, JobSettings(repo=RepoName(name), job=name), {"ticket": name}, ticket)
    table.finish()


def _has_tables(table: OldTable) -> bool:
    return any(isinstance(value, dict) for value in table.data.values())


def _server(table: OldTable) -> str:
    """Set the build server; return its name."""
    url, place = table.text("jenkins-url"), ("jenkins", "servers", SERVER)
    problems = BuildServerSettings(url=url, allow_http=True).problems() if url is not None else ()
    if url is None or problems:
        if problems:
            table.lose("jenkins-url", "; ".join(problems))
        table.draft.values.setdefault((*place, "url"), NO_URL)
        table.draft.warn(f"jenkins.servers.{SERVER}.url: write the URL of Jenkins there")
        return SERVER
    table.put("jenkins-url", (*place, "url"), url, "where it asks for a login: user and token_file")
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts):
        comment = "http encrypts nothing, tokens neither: better use https"
        table.put("jenkins-url", (*place, "allow_http"), True, comment)
    return SERVER


def _job(table: OldTable, server: str, repo: str, project: str) -> None:
    """Convert one job, for a repository or for one Subversion project in it."""
    job, ticket = table.text("project"), table.text("ticket")
    ignore = table.text("ignore_refs")
    if job is None:
        table.lose_whole("there is no project in it, so that nothing is built")
        return
    keys = {"job": "project", "ticket": "ticket", "ignore_refs": "ignore_refs"}
    where = ".".join(table.path)
    if ignore is None and "ignore_refs" not in table.data:
        table.draft.warn(f"{table.file.path}: {where} has no ignore_refs, so that nothing was built: all refs are now")
    elif ignore is not None:
        try:
            compile_ref_pattern(ignore)
        except SettingsError as error:
            table.lose_error("ignore_refs", error)
            ignore = None
    settings = JobSettings(
        repo=RepoName(repo), job=job, ignore_refs=ignore or "", projects=(project,) if project else ()
    )
    _put_job(table, server, settings, keys, ticket)


def _put_job(table: OldTable, server: str, job: JobSettings, keys: dict[str, str], ticket: str | None) -> None:
    """Add a job; one that is there already for another project of the same repository gets that project, too."""
    draft, lost = table.draft, [key for key in keys.values() if key in table.data]
    try:
        parse_repo_name(job.repo)
        problem = "; ".join(job.problems())
    except InvalidName as error:
        problem = str(error)
    if problem:
        for key in lost:
            table.lose(key, problem)
        return
    for number in range(draft.next_in(("jenkins", "jobs"))):
        at: Place = ("jenkins", "jobs", number)
        if (draft.values.get((*at, "repo")), draft.values.get((*at, "job"))) == (job.repo, job.job):
            _join(table, at, job, keys, ticket)
            return
    at = ("jenkins", "jobs", draft.next_in(("jenkins", "jobs")))
    draft.values |= {(*at, "repo"): str(job.repo)}
    table.put(keys.get("job", lost[0] if lost else ""), (*at, "job"), job.job)
    draft.values |= {(*at, "server"): server}
    if job.ignore_refs:
        table.put(keys["ignore_refs"], (*at, "ignore_refs"), job.ignore_refs)
    if job.projects:
        draft.values[(*at, "projects")] = list(job.projects)
    if ticket:
        name = f"{path_component(f'jenkins-{job.repo}-{unquote(job.job)}')}.token"
        table.put_secret(keys["ticket"], (*at, "token_file"), name, ticket)


def _join(table: OldTable, at: Place, job: JobSettings, keys: dict[str, str], ticket: str | None) -> None:
    """Let a job that is there build another project of its repository."""
    values = table.draft.values
    before = JobSettings(
        repo=job.repo,
        job=job.job,
        ignore_refs=str(values.get((*at, "ignore_refs"), "")),
    )
    same = attrs.evolve(job, projects=()) == before and table.draft.secrets.get((*at, "token_file")) == ticket
    projects = values.get((*at, "projects"))
    if same and isinstance(projects, list) and job.projects:
        values[(*at, "projects")] = [*dict.fromkeys([*projects, *job.projects])]
    elif not (same and bool(projects) == bool(job.projects)):
        for key in keys.values():
            if key in table.data:
                table.lose(key, "this job is there already for this repository, with other settings")


def _fits(file: OldFile) -> bool:
    return "jenkins-url" in file.data or "jenkins-projects" in file.data


KIND: Final = Kind(
    name="stomp-jenkins",
    title="build daemon",
    file="stomp-jenkins.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)

__all__ = ["KIND"]
