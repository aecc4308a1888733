"""`[jenkins]` and `[[jenkins.jobs]]`: what is wrong is said at once, with its place and the way out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.settings import BuildServerSettings, JenkinsSettings, JobSettings
from deploykit.settings.jenkins import PUSH_PARAMETERS
from deploykit.system.regex import compile_regex
from tests.support.buildorders import SHOP, jenkins, job

SERVER = '[jenkins.servers.ci]\nurl = "https://ci.example.org/"\n'
JOB = '[[jenkins.jobs]]\nrepo = "shop"\njob = "tests"\n'


def problems(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(f'node = "web1"\n{text}'.encode())
    return "\n".join(caught.value.problems)


def test_a_job_needs_a_repository_and_a_name_and_the_only_server_is_its_own() -> None:
    settings = parse_settings(f'node = "web1"\n{SERVER}{JOB}'.encode()).jenkins
    (made,) = settings.jobs
    assert settings.server_of(made) == "ci"
    assert made.refs == ("refs/heads/*", "refs/tags/*")
    assert made.ignore_refs == ""
    assert made.templates(revision=False) == PUSH_PARAMETERS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JOB, "jenkins.jobs[0].server: expected one of the servers in [jenkins.servers] (none)"),
        (SERVER + JOB + 'server = "cj"\n', "jenkins.jobs[0].server: 'cj' is not in [jenkins.servers] (known: ci)"),
        (SERVER + JOB + JOB, "jenkins.jobs[1].job: jobs[0] starts tests for shop already (name all refs there)"),
        (SERVER + JOB.replace('"shop"', '"../x"'), "jenkins.jobs[0].repo: not a repository name: '../x'"),
        (SERVER + JOB.replace('"tests"', '"a//b"'), "jenkins.jobs[0].job: expected FOLDER/JOB"),
        (SERVER + JOB.replace('"tests"', '"../tests"'), "jenkins.jobs[0].job: expected FOLDER/JOB"),
        (SERVER + JOB.replace('"tests"', '"a/%2e%2E/tests"'), "jenkins.jobs[0].job: expected FOLDER/JOB"),
        (SERVER + JOB.replace('"tests"', '"a%0Ab"'), "jenkins.jobs[0].job: expected FOLDER/JOB"),
        (SERVER + JOB.replace('"tests"', f'"{"x" * 1025}"'), "jenkins.jobs[0].job: expected FOLDER/JOB"),
        (SERVER + JOB + "refs = []\n", "jenkins.jobs[0].refs: expected patterns of refs"),
        (
            SERVER + JOB + 'refs = ["main"]\n',
            "jenkins.jobs[0].refs: expected full ref names, as refs/heads/*, not 'main'",
        ),
        (SERVER + JOB + 'ignore = ["wip"]\n', "jenkins.jobs[0].ignore: expected full ref names, as refs/heads/*"),
        (SERVER + JOB + 'ignore_refs = "(a"\n', "jenkins.jobs[0].ignore_refs: '(a' is not accepted by google-re2"),
        (SERVER + JOB + 'parameters = { A = "{branch}" }\n', "jenkins.jobs[0].parameters.A: no such value: {branch}"),
        (
            SERVER + JOB + 'parameters = { "A B" = "x" }\n',
            "jenkins.jobs[0].parameters: 'A B' is no name of a parameter",
        ),
        (SERVER + JOB + 'parameters = { A = "a\\nb" }\n', "jenkins.jobs[0].parameters.A: holds a control character"),
        (SERVER + JOB + 'branch = "x"\n', "jenkins.jobs[0].branch: unknown setting"),
        ("[jenkins]\nattempts = 0\n", "jenkins.attempts: expected at least 1, not 0"),
        ("[jenkins]\ngive_up_after = 0\n", "jenkins.give_up_after: expected seconds above 0"),
        ("[jenkins]\npause_max = 7201\n", "jenkins.pause_max: expected at most 3600, not 7201"),
        ("[jenkins]\nask_again_after = 7201\n", "jenkins.ask_again_after: expected at most 3600, not 7201"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    assert expected in problems(text)


def test_without_google_re2_an_expression_is_refused_and_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_regex.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)
    assert (
        "a regular expression needs the package google-re2 (pip install deploykit[re2], or use globs in ignore)"
        in problems(SERVER + JOB + 'ignore_refs = "wip"\n')
    )
    parse_settings(f'node = "web1"\n{SERVER}{JOB}'.encode())


def test_a_job_may_be_started_for_two_repositories_and_at_two_servers() -> None:
    found = jenkins(job(server="ci"), job(server="two"), job("b", server="ci"), servers=("ci", "two"))
    assert found.problems() == ()


def test_a_request_of_another_kind_of_server_gets_all_its_values(tmp_path: Path) -> None:
    url = "https://forge.example.org/{job}/{DEPLOYKIT_REF}?id={correlation_id}&kind={KIND}&t={token}"
    servers = {"forge": BuildServerSettings(kind="http", url=url)}

    def found(one: JobSettings) -> list[str]:
        settings = JenkinsSettings(servers=servers, jobs=(one,))
        return [line.rpartition("needs ")[2].partition(",")[0] for line in settings.problems() if "needs" in line]

    whole = JobSettings(
        repo=SHOP, job="x", parameters={"KIND": "tests", "DEPLOYKIT_REF": "{ref}"}, token_file=tmp_path / "token"
    )
    assert found(whole) == []
    assert found(JobSettings(repo=SHOP, job="x")) == ["DEPLOYKIT_REF", "KIND", "token"]
