"""`deploykit doctor --jenkins`: what is wrong with a server or a job is named with its way out; nothing is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploykit.cli import group
from deploykit.errors import SettingsError
from deploykit.names import RepoName
from deploykit.operations.buildcheck import examine_builds
from deploykit.operations.findings import Finding
from deploykit.settings.buildservers import BuildServerSettings
from deploykit.settings.jenkins import JenkinsSettings, JobSettings
from tests.support.stubjenkins import FOUR, StubJenkins, StubJob

JOBS = [
    StubJob(name="shop-tests"),
    StubJob(name="team/my tests", parameters=[*FOUR, "TARGET"]),
    StubJob(name="no-parameters", parameters=None),
    StubJob(name="old-parameters", parameters=FOUR[1:]),
    StubJob(
        name="svn",
        parameters=["DEPLOYKIT_CORRELATION_ID", "DEPLOYKIT_REPO", "DEPLOYKIT_PROJECT", "DEPLOYKIT_REVISION"],
    ),
    StubJob(name="team", kind="folder"),
    StubJob(name="shop", kind="multibranch"),
    StubJob(name="disabled", disabled=True),
    StubJob(name="hidden", readers=frozenset()),
    StubJob(name="discovered", readers=frozenset(), discoverers=frozenset({"deploykit"})),
]


def findings(server: BuildServerSettings, *jobs: JobSettings) -> list[Finding]:
    settings = JenkinsSettings(servers={"ci": server}, jobs=jobs)
    assert settings.problems() == ()
    return list(examine_builds(settings))


def job(name: str, **more: Any) -> JobSettings:
    return JobSettings(repo=RepoName("shop"), job=name, **more)


def lines(found: list[Finding]) -> list[str]:
    return [f"{finding.verdict} {finding.check}: {finding.text}" for finding in found]


def test_a_sound_server_and_its_jobs_are_sound(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        found = findings(
            jenkins.settings(tmp_path),
            job("shop-tests"),
            job("team/my%20tests", parameters={"TARGET": "x"}),
            job("svn", projects=("a",)),
            job("no-parameters", standard_parameters=False),
            job("shop", multibranch=True),
        )
        assert [seen for seen in jenkins.seen if seen.method != "GET" or "build" in seen.path] == []
        assert jenkins.queue.items == []
    assert lines(found) == [
        "ok answers: Jenkins 2.440.3",
        "ok login: accepted as deploykit",
        f"ok shop-tests: {jenkins.url}job/shop-tests/ defines all 4 parameters",
        f"ok team/my%20tests: {jenkins.url}job/team/job/my%20tests/ defines all 5 parameters",
        f"ok svn: {jenkins.url}job/svn/ defines all 4 parameters",
        f"ok no-parameters: {jenkins.url}job/no-parameters/ is sent no parameters",
        f"ok shop: {jenkins.url}job/shop/ is a multibranch project; its branches define the parameters",
    ]


@pytest.mark.parametrize(
    ("wrong", "says", "remedy"),
    [
        (job("no-parameters"), "has no parameters", "string(name: 'DEPLOYKIT_REF', defaultValue: '')"),
        (job("old-parameters"), "without the correlation id a lost answer", "run the job once by hand"),
        (job("shop-tests", parameters={"TARGET": "x"}), "does not define TARGET", "string(name: 'TARGET'"),
        (job("shop-tests", projects=("a",)), "DEPLOYKIT_PROJECT, DEPLOYKIT_REVISION", "String Parameters"),
        (job("team"), "is a folder", "FOLDER/JOB"),
        (job("disabled"), "is disabled", "enable it"),
        (job("hidden"), "404: no such job, or deploykit may not see it", "Job/Read"),
        (job("absent"), "404: no such job", "compare the name with"),
        (job("job/shop-tests"), "404: no such job", "without the job/ of the address"),
        (job("discovered"), "403", "give deploykit Job/Read on discovered"),
        (job("shop-tests", multibranch=True), "is no multibranch project", "take multibranch out"),
        (job("shop-tests", token_file=Path("/nonexistent/token")), "token_file: cannot read", "correct the file"),
    ],
)
def test_what_is_wrong_with_a_job_is_named(tmp_path: Path, wrong: JobSettings, says: str, remedy: str) -> None:
    with StubJenkins(JOBS) as jenkins:
        found = findings(jenkins.settings(tmp_path), wrong)
    (failed,) = [finding for finding in found if finding.failed]
    assert failed.check == wrong.job
    assert says in failed.text
    assert remedy in failed.remedy
    assert ("correlation id" in failed.text) == (wrong.job in ("no-parameters", "old-parameters"))


def test_a_multibranch_project_that_only_scans_is_a_warning(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        (found,) = findings(jenkins.settings(tmp_path), job("shop"))[2:]
    assert found.verdict == "warning"
    assert "set multibranch = true" in found.remedy


def checked(jenkins: StubJenkins, directory: Path, **more: Any) -> Finding:
    """The last finding about a server that fails before its jobs are looked at."""
    found = findings(jenkins.settings(directory, **more), job("shop-tests"))
    assert found[-1].failed
    assert found[-1].remedy
    assert found[-1].check != "shop-tests"
    return found[-1]


def test_what_is_wrong_with_a_server_is_named(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        assert "does not speak TLS" in checked(jenkins, tmp_path, url=jenkins.url.replace("http:", "https:")).text
        assert checked(jenkins, tmp_path, url=jenkins.url.replace("jenkins/", "ci/")).text.startswith("400: not an")
        jenkins.fault("status", status=302, headers={"Location": "/x"})
        assert checked(jenkins, tmp_path).text == "302: a redirect, which is not followed"
        jenkins.fault("status", status=403)
        assert checked(jenkins, tmp_path).remedy == "give deploykit Overall/Read"
        jenkins.fault("never")
        assert "did not answer" in checked(jenkins, tmp_path, timeout=0.3).text
        jenkins.users["deploykit"] = ("canary-other", "canary-other")
        wrong = checked(jenkins, tmp_path, token_file=_secret(tmp_path, "canary-wrong"))
        assert (wrong.check, wrong.text) == ("login", "401: deploykit is refused")
        jenkins.anonymous_reads = False
        assert checked(jenkins, tmp_path, login="").remedy == "set user and token_file"
        settings = checked(jenkins, tmp_path, token_file=tmp_path / "absent")
        assert "token_file: cannot read" in settings.text
    assert "cannot be reached" in checked(jenkins, tmp_path).text


def _secret(directory: Path, text: str) -> Path:
    path = directory / "other"
    path.touch(0o600)
    path.write_text(text)
    return path


def test_a_password_and_no_login_are_noted(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        by_password = findings(jenkins.settings(tmp_path, login="password"))
        nobody = findings(jenkins.settings(tmp_path, login=""))
    assert [(finding.verdict, finding.text) for finding in by_password[1:]] == [
        ("ok", "accepted as deploykit"),
        ("note", "with a password"),
    ]
    assert [(finding.verdict, finding.text) for finding in nobody[1:]] == [("note", "none")]


def test_a_server_of_kind_http_is_reached_and_sent_nothing(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        settings = BuildServerSettings(kind="http", url=f"{jenkins.url}run/{{job}}", timeout=5.0)
        (found,) = findings(settings, job("anything"))
        assert jenkins.seen == []
    assert (found.verdict, found.check) == ("ok", "answers")
    (gone,) = findings(settings, job("anything"))
    assert gone.failed
    assert "cannot be reached" in gone.text


def test_without_a_server_there_is_nothing_to_check() -> None:
    with pytest.raises(SettingsError, match="no build server"):
        examine_builds(JenkinsSettings())


def test_the_command_prints_lines_or_json_and_ends_with_1_for_an_error(tmp_path: Path) -> None:
    with StubJenkins(JOBS) as jenkins:
        server = jenkins.settings(tmp_path)
        config = tmp_path / "deploykit.toml"
        config.write_text(
            f'node = "n"\n[jenkins.servers.ci]\nurl = "{jenkins.url}"\nuser = "deploykit"\n'
            f'token_file = "{server.token_file}"\n[[jenkins.jobs]]\nrepo = "shop"\njob = "shop-tests"\n'
        )
        config.chmod(0o600)
        plain = CliRunner().invoke(group, ["doctor", "--jenkins", "--config", str(config)])
        jenkins.queue.jobs["shop-tests"].disabled = True
        as_json = CliRunner().invoke(group, ["doctor", "--jenkins", "--json", "--config", str(config)])
    assert plain.exit_code == 0, plain.output
    assert plain.output.splitlines()[1] == "ok      ci  login: accepted as deploykit"
    assert as_json.exit_code == 1
    last = json.loads(as_json.output.splitlines()[-1])
    assert (last["server"], last["check"], last["ok"], last["fix"]) == (
        "ci",
        "shop-tests",
        False,
        "enable it in Jenkins",
    )
