"""`deploykit jenkins plan|list|retry|drop`: what people ask about builds, without a broker or a build server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.daemons.jenkins.ports import BuildAnswer
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.rules import BuildRules, event_key
from deploykit.errors import SettingsError, UsageError
from deploykit.wire import encode
from tests.support.buildorders import jenkins, job, push

JOBS = """
[[jenkins.jobs]]
repo = "shop"
job = "shop-tests"
ignore_refs = "wip"
parameters = { KIND = "tests" }
[[jenkins.jobs]]
repo = "shop"
job = "web"
projects = ["web*"]
refs = ["refs/heads/main"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "deploykit.toml"
    file.write_text(
        f'node = "web1"\nstate = "{tmp_path}/state"\n[outbox]\npath = "{tmp_path}/spool"\n'
        f'[jenkins.servers.ci]\nurl = "https://ci.example.org/"\n{JOBS}'
    )
    return file


def invoke(config: Path, *words: str) -> Result:
    return CliRunner().invoke(group, ["jenkins", "--config", str(config), *words], catch_exceptions=True)


def test_a_plan_names_builds_with_their_parameters_and_reasons_for_the_rest(config: Path) -> None:
    out = invoke(config, "plan", "--repo", "shop", "--ref", "topic").output
    assert "build  ci: shop-tests\n" in out
    assert "DEPLOYKIT_REF=refs/heads/topic\n" in out
    assert 'not    ci: web: refs/heads/topic matches none of refs = ["refs/heads/main"]\n' in out
    out = invoke(config, "plan", "--repo", "shop", "--ref", "refs/heads/wip/x").output
    assert 'not    ci: shop-tests: ignore_refs = "wip" is found in refs/heads/wip/x\n' in out
    out = invoke(config, "plan", "--repo", "shop", "--ref", "main", "--deleted").output
    assert out == "not    refs/heads/main was deleted: deletes are never built\n"


def test_a_plan_for_a_revision_is_made_of_its_projects(config: Path) -> None:
    words = ("plan", "--repo", "shop", "--revision", "7", "--project", "web-admin", "--json")
    found = json.loads(invoke(config, *words).output)
    assert [build["job"] for build in found["builds"]] == ["shop-tests", "web"]
    assert found["builds"][1]["parameters"]["DEPLOYKIT_PROJECT"] == "web-admin"


def test_a_plan_needs_a_ref_or_a_revision(config: Path) -> None:
    assert invoke(config, "plan", "--repo", "shop").exit_code == 2


def test_a_build_that_was_refused_is_listed_and_asked_for_again(config: Path, tmp_path: Path) -> None:
    assert isinstance(invoke(config, "list").exception, UsageError)  # no daemon has made the file
    message = push()
    builds = BuildRules(jenkins(job())).plan(message, event_key(message, legacy=False)).builds
    key = builds[0].key
    with BuildQueue(tmp_path / "state" / "jenkins.sqlite") as queue:
        queue.add(builds, encode(message), "/topic/x", 1000.0)
        answer = BuildAnswer(kind="refused", detail="409: disabled", remedy="enable it in Jenkins")
        queue.answered(key, "answered", answer, 1001.0)
        queue.reported(key, "refused")
        (refused,) = json.loads(invoke(config, "list", "--json").output)
        assert (refused["key"], refused["state"], refused["remedy"]) == (key, "refused", "enable it in Jenkins")
        out = invoke(config, "list").output
        assert out.startswith(f"{key[:12]}  refused  1970-01-01 00:16:40Z  ci: shop-tests for [shop] refs/heads/main")
        assert message.new not in out  # twelve digits of a commit are enough for people
        assert out.splitlines()[1:] == ["              409: disabled", "              to do: enable it in Jenkins"]
        for words in (("retry", key[:3]), ("drop", key[:3])):  # too short to be meant
            short = invoke(config, *words)
            assert (short.exit_code, isinstance(short.exception, SystemExit)) == (2, True)
            assert "is too short: give 6 characters" in short.output
        assert invoke(config, "retry").exit_code == 2
        assert invoke(config, "retry", "--all", key).exit_code == 2
        other = invoke(config, "retry", "f" * 12)
        assert (other.exit_code, "no refused build has such a key" in other.output) == (1, True)
        assert invoke(config, "retry", key[:12]).output == "1 build to be asked for again\n"
        (waits,) = json.loads(invoke(config, "list", "--json").output)
        assert waits["state"] == "waiting"
        # As the settings are now: what was refused for its parameters gets the new ones.
        now = queue.get(key)
        assert now is not None
        assert now.wanted.order.parameters["KIND"] == "tests"
        assert "KIND" not in builds[0].order.parameters
        assert invoke(config, "drop", key).output == "1 build dropped\n"
        assert "no build that waits has such a key" in invoke(config, "drop", key).output
        assert invoke(config, "list").output == "no build waits, none was refused (--all lists the others)\n"
        assert key[:12] in invoke(config, "list", "--all").output


def test_a_build_that_has_its_number_is_listed_with_it_and_nothing_that_a_server_wrote_reaches_the_terminal(
    config: Path, tmp_path: Path
) -> None:
    message = push()
    (build,) = BuildRules(jenkins(job())).plan(message, event_key(message, legacy=False)).builds
    with BuildQueue(tmp_path / "state" / "jenkins.sqlite") as queue:
        queue.add((build,), encode(message), "/topic/x", 1000.0)
        queue.answered(build.key, "answered", BuildAnswer(kind="queued", detail="queued \x1b[31m"), 1001.0)
        assert invoke(config, "list", "--all").output.splitlines()[1] == r"              queued \x1b[31m"
        answer = BuildAnswer(kind="queued", detail="queued as item 3", queue_item=3, number=7)
        queue.answered(build.key, "followed", answer, 1002.0)
        assert invoke(config, "list", "--all").output.splitlines()[1] == "              started as number 7"


def test_a_daemon_without_a_job_is_not_started(config: Path) -> None:
    config.write_text(config.read_text().replace(JOBS, ""))
    error = invoke(config).exception
    assert isinstance(error, SettingsError)
    assert "there is no [[jenkins.jobs]]" in str(error)


def test_the_status_of_the_node_shows_what_waits(config: Path, tmp_path: Path) -> None:
    status = ["status", "--config", str(config)]
    assert f"jenkins no build waits  {tmp_path}" in CliRunner().invoke(group, status).output
    message = push()
    builds = BuildRules(jenkins(job())).plan(message, event_key(message, legacy=False)).builds
    with BuildQueue(tmp_path / "state" / "jenkins.sqlite") as queue:
        queue.add(builds, encode(message), "/topic/x", 1000.0)
    assert f"jenkins 1 waiting for ci  {tmp_path}" in CliRunner().invoke(group, status).output
    found = json.loads(CliRunner().invoke(group, [*status, "--json"]).output)
    assert found["jenkins"][0]["waiting"] == {"ci": 1}
