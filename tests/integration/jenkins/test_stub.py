"""The stub Jenkins is as strict as the real one, and its builds report themselves as ours do."""

from __future__ import annotations

import http.client
import os
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

import deploykit
from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.messages import BuildFinished, BuildStarted
from deploykit.outbox import Outbox
from deploykit.wire import decode
from tests.integration.jenkins.conftest import COMMIT, order
from tests.support.processes import wait_gone
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

USER = f"Basic {b64encode(b'deploykit:canary-api-token').decode()}"
NOTIFY = Path(__file__).parents[3] / "hooks" / "jenkins" / "jenkins-notify"


def ask(jenkins: StubJenkins, method: str, path: str, *, login: str = USER, **form: str) -> tuple[int, str, str]:
    """Send one raw request; return status, body, and Location or Allow."""
    connection = http.client.HTTPConnection("127.0.0.1", jenkins.port, timeout=10)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **({"Authorization": login} if login else {})}
    body = urlencode(form) if method == "POST" else None
    connection.request(method, f"/jenkins/{path}", body=body, headers=headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text, reply.getheader("Location") or reply.getheader("Allow") or ""


@pytest.mark.parametrize(
    ("method", "path", "login", "status", "says"),
    [
        ("GET", "job/shop-tests/build", USER, 405, ""),
        ("GET", "job/shop-tests/buildWithParameters", USER, 405, ""),
        ("GET", "job/with-token/build?token=canary-wrong", USER, 403, "Invalid token"),
        ("GET", "job/shop/job/feature%2Flogin/api/json", USER, 400, "Ambiguous"),
        ("GET", "job/team/../shop-tests/api/json", USER, 400, "Ambiguous"),
        ("GET", "queue/item/1/", USER, 404, ""),
        ("GET", "queue/item/99/api/json", USER, 404, ""),
        ("GET", "api/json?tree=a[b", USER, 500, "bad tree"),
        ("GET", "api/json", "Basic eDp5", 401, "Invalid password"),
        ("POST", "job/shop-tests/buildWithParameters", "", 403, "No valid crumb"),
        ("POST", "job/shop-tests/build", USER, 400, "Nothing is submitted"),
        ("POST", "job/no-parameters/buildWithParameters", USER, 400, "not parameterized"),
        ("POST", "job/team/build", USER, 404, ""),
        ("POST", "job/shop-tests/buildWithParameters?delay=soon", USER, 400, "Invalid delay"),
    ],
)
def test_what_is_not_as_jenkins_wants_it_is_refused(
    jenkins: StubJenkins, method: str, path: str, login: str, status: int, says: str
) -> None:
    got, text, where = ask(jenkins, method, path, login=login)
    assert got == status
    assert says in text
    assert (where == "POST") == (got == 405)
    assert jenkins.queue.items == []


def test_the_original_get_with_the_jobs_token_builds(jenkins: StubJenkins) -> None:
    jenkins.queue.jobs["with-token"].parameters = None
    status, _, where = ask(jenkins, "GET", "job/with-token/build?token=canary-job-token", login="")
    assert (status, urlsplit(where).path) == (201, "/jenkins/queue/item/1/")


def test_joining_is_201_for_build_and_303_for_parameters(jenkins: StubJenkins) -> None:
    for path, statuses in (("no-parameters/build", [201, 201]), ("shop-tests/buildWithParameters", [201, 303])):
        answers = [ask(jenkins, "POST", f"job/{path}", DEPLOYKIT_REF="r", UNDEFINED=n) for n in ("1", "2")]
        assert [answer[0] for answer in answers] == statuses
        assert answers[0][2] == answers[1][2]


def test_a_crumb_counts_only_in_its_own_session(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = JenkinsServer("ci", jenkins.settings(tmp_path, login="password"))
    assert server.start(order(), deadline=10).accepted
    for session in jenkins.sessions:
        jenkins.sessions[session] = "another"
    assert server.start(order(correlation_id="c2"), deadline=10).accepted
    assert [seen.status for seen in jenkins.posts()] == [201, 403, 201]


@pytest.mark.parametrize(("code", "outcome"), [(0, "success"), (1, "failure")])
def test_a_build_reports_itself_with_what_it_was_asked_for(tmp_path: Path, code: int, outcome: str) -> None:
    config = tmp_path / "hooks.toml"
    config.write_text(f'spool = "{tmp_path / "spool"}"\nrelay = ""\nnotices = false\n')
    notify = [sys.executable, str(NOTIFY), "--config", str(config)]
    job = StubJob(
        name="shop/feature%2Flogin",
        steps=[[*notify, "begin"], ["sh", "-c", f'echo "$DEPLOYKIT_REF"; exit {code}']],
        always=[*notify, "RESULT"],
        checkout=lambda parameters: {"GIT_COMMIT": parameters["DEPLOYKIT_COMMIT"], "GIT_BRANCH": "origin/main"},
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(deploykit.__file__).parents[1])}
    with StubJenkins([job], environ=environ, root_url="https://ci.example.org/") as jenkins:
        server = JenkinsServer("ci", jenkins.settings(tmp_path))
        assert server.start(order(job.name), deadline=10).kind == "queued"
        (build,) = jenkins.queue.wait_for_builds(job.name, 1, timeout=60)
        found = server.find(order(job.name), deadline=10)
    assert found is not None
    assert found.number == 1
    assert "refs/heads/main" in build.log
    records = list(Outbox(tmp_path / "spool").pending())
    assert len(records) == 2, build.log
    begun, ended = (decode(record.frame.headers, record.frame.body, record.destination) for record in records)
    assert isinstance(begun, BuildStarted), build.log
    assert isinstance(ended, BuildFinished)
    assert ended.outcome == outcome
    for message in (begun, ended):
        assert (message.job, message.number, message.correlation_id) == (job.name, 1, "c1")
        assert (message.repo, message.ref, message.commit) == ("shop", "refs/heads/main", COMMIT)
        assert message.url == "https://ci.example.org/job/shop/job/feature%252Flogin/1/"


def test_what_runs_is_ended_with_the_stub(tmp_path: Path) -> None:
    job = StubJob(name="slow", parameters=None, steps=[["sh", "-c", f"echo $$ > {tmp_path / 'pid'}; sleep 600"]])
    with StubJenkins([job]) as jenkins:
        assert ask(jenkins, "POST", "job/slow/build")[0] == 201
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    assert job.builds[0].result == "ABORTED"
    wait_gone(int((tmp_path / "pid").read_text()))
