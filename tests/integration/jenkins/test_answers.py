"""Every row of the table over a real socket: how a strict Jenkins answers, and what is made of it."""

from __future__ import annotations

import threading
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildOrder
from deploykit.daemons.jenkins.servers import open_server
from deploykit.errors import BuildServerError, MayNotLook
from tests.integration.jenkins.conftest import COMMIT, order, secret
from tests.support.stubjenkins import FOUR, StubJenkins, StubJob
from tests.support.wait import wait_until

LOGINS = ["token", "password"]


def client(jenkins: StubJenkins, directory: Path, login: str = "token") -> JenkinsServer:
    return JenkinsServer("ci", jenkins.settings(directory, login=login))


def start(server: JenkinsServer, what: BuildOrder) -> BuildAnswer:
    return server.start(what, deadline=20)


@pytest.mark.parametrize("login", LOGINS)
def test_a_build_is_queued_with_what_the_job_defines(jenkins: StubJenkins, tmp_path: Path, login: str) -> None:
    answer = start(client(jenkins, tmp_path, login), order())
    assert (answer.kind, answer.queue_item, answer.url) == ("queued", 1, f"{jenkins.url}queue/item/1/")
    (item,) = jenkins.queue.waiting()
    assert set(item.parameters) == set(FOUR)  # what the job does not define, Jenkins drops in silence
    assert item.parameters["DEPLOYKIT_COMMIT"] == COMMIT


@pytest.mark.parametrize("login", LOGINS)
def test_an_equal_build_joins_and_another_does_not(jenkins: StubJenkins, tmp_path: Path, login: str) -> None:
    server = client(jenkins, tmp_path, login)
    assert start(server, order()).kind == "queued"
    joined = start(server, order())
    assert (joined.kind, joined.queue_item) == ("joined", 1)
    assert start(server, order(correlation_id="c2")).queue_item == 2


def test_a_job_without_parameters_is_built_and_known_afterwards(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    first = start(server, order("no-parameters"))
    assert (first.kind, first.queue_item) == ("queued", 1)
    assert "dropped" in first.detail
    second = start(server, order("no-parameters"))
    assert (second.kind, second.queue_item) == ("joined", 1)  # Jenkins says 201 again
    assert [seen.path.rpartition("/")[2] for seen in jenkins.posts()] == ["buildWithParameters", "build", "build"]


def test_a_job_with_parameters_is_built_by_an_order_without(jenkins: StubJenkins, tmp_path: Path) -> None:
    bare = attrs.evolve(order(), parameters={})
    assert start(client(jenkins, tmp_path), bare).kind == "queued"
    assert [seen.status for seen in jenkins.posts()] == [400, 201]


@pytest.mark.parametrize(
    ("job", "path"),
    [
        ("team/my tests", "/jenkins/job/team/job/my%20tests/buildWithParameters"),
        ("team/my%20tests", "/jenkins/job/team/job/my%20tests/buildWithParameters"),
        ("shop/feature%2Flogin", "/jenkins/job/shop/job/feature%252Flogin/buildWithParameters"),
    ],
)
def test_folders_branches_and_blanks_are_found(jenkins: StubJenkins, tmp_path: Path, job: str, path: str) -> None:
    assert start(client(jenkins, tmp_path), order(job)).kind == "queued"
    assert jenkins.posts()[-1].path == path


def test_a_multibranch_project_scans(jenkins: StubJenkins, tmp_path: Path) -> None:
    answer = start(client(jenkins, tmp_path), order("shop"))
    assert (answer.kind, answer.queue_item) == ("scanned", None)
    assert [seen.status for seen in jenkins.posts()] == [404, 302]


def test_a_job_that_is_held_back_is_no_scan(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    for job, location in (("shop-tests", "."), ("no-parameters", f"{jenkins.url}job/no-parameters/")):
        how = {"status": 302, "headers": {"Location": location}, "carried_out": False}
        jenkins.fault("status", path="/build(WithParameters)?$" if job == "shop-tests" else "/build$", **how)
        answer = start(server, order(job))
        assert (answer.kind, answer.retry) == ("refused", False)
        assert "queued nothing" in answer.detail


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize(
    ("job", "kind", "says"),
    [
        ("disabled", "refused", "409"),
        ("absent", "missing", "404"),
        ("hidden", "missing", "404"),
        ("team", "missing", "404"),
        ("discovered", "refused", "Job/Read"),
        ("not-ours", "refused", "Job/Build"),
        ("a/../b", "refused", "not the name of a job"),
    ],
)
def test_what_cannot_be_built_is_final_and_says_what_to_change(
    jenkins: StubJenkins, tmp_path: Path, login: str, job: str, kind: str, says: str
) -> None:
    answer = start(client(jenkins, tmp_path, login), order(job))
    assert (answer.kind, answer.retry) == (kind, False)
    assert says in answer.detail
    assert answer.remedy
    assert jenkins.queue.waiting() == []
    assert len(jenkins.posts()) <= 3


def test_a_wrong_token_and_a_wrong_password_are_refused(jenkins: StubJenkins, tmp_path: Path) -> None:
    for login in LOGINS:
        settings = jenkins.settings(tmp_path, login=login)
        secret(settings.secret_files()[f"{login}_file"], "canary-wrong")
        answer = start(JenkinsServer("ci", settings), order())
        assert (answer.kind, answer.retry) == ("refused", False)
        assert f"{login}_file of [jenkins.servers.ci]" in answer.remedy


def test_a_token_that_was_renewed_in_its_file_counts_at_once(jenkins: StubJenkins, tmp_path: Path) -> None:
    settings = jenkins.settings(tmp_path)
    server = JenkinsServer("ci", settings)
    jenkins.users["deploykit"] = ("canary-new-token", "p")
    assert "401" in start(server, order()).detail
    secret(settings.secret_files()["token_file"], "canary-new-token")
    assert start(server, order()).kind == "queued"


def test_a_secret_that_others_can_read_is_not_used_and_tried_again(jenkins: StubJenkins, tmp_path: Path) -> None:
    settings = jenkins.settings(tmp_path)
    token = secret(tmp_path / "job-token", "canary-job-token")
    token.chmod(0o644)
    of_job = start(JenkinsServer("ci", settings), order("with-token", token_file=token))
    settings.secret_files()["token_file"].chmod(0o644)
    of_server = start(JenkinsServer("ci", settings), order())
    for answer, kind in ((of_job, "refused"), (of_server, "unreachable")):
        assert (answer.kind, answer.retry) == (kind, True)
        assert "chmod 0600" in answer.remedy
    assert jenkins.seen == []


def test_the_jobs_own_token_builds_what_the_user_may_not(jenkins: StubJenkins, tmp_path: Path) -> None:
    token = secret(tmp_path / "job-token", "canary-job-token")
    assert start(client(jenkins, tmp_path), order("with-token", token_file=token)).kind == "queued"
    wrong = secret(tmp_path / "wrong", "canary-wrong")
    answer = start(client(jenkins, tmp_path), order("with-token", token_file=wrong))
    assert answer.kind == "refused"
    assert "Trigger builds remotely" in answer.remedy
    assert "canary" not in "".join(f"{seen.path}?{seen.query}" for seen in jenkins.seen)  # so in no access log


def test_the_jobs_own_token_alone_needs_a_crumb_and_gets_one(jenkins: StubJenkins, tmp_path: Path) -> None:
    token = secret(tmp_path / "job-token", "canary-job-token")
    answer = start(client(jenkins, tmp_path, ""), order("with-token", token_file=token))
    assert answer.kind == "queued"


def test_where_nobody_may_fetch_a_crumb_the_way_out_is_an_api_token(tmp_path: Path) -> None:
    token = secret(tmp_path / "job-token", "canary-job-token")
    with StubJenkins([StubJob(name="j", token="canary-job-token")], anonymous_reads=False) as jenkins:
        answer = start(client(jenkins, tmp_path, ""), order("j", token_file=token))
    assert answer.kind == "refused"
    assert "crumb" in answer.detail
    assert "set user and token_file" in answer.remedy


def test_an_api_token_fetches_no_crumb_and_a_password_one_for_many_orders(jenkins: StubJenkins, tmp_path: Path) -> None:
    for login, crumbs in (("token", 0), ("password", 1)):
        jenkins.seen.clear()
        server = client(jenkins, tmp_path, login)
        for number in range(3):
            start(server, order(correlation_id=f"{login}{number}"))
        assert [seen.path.endswith("crumbIssuer/api/json") for seen in jenkins.seen].count(True) == crumbs


def test_a_crumb_that_died_with_jenkins_is_fetched_again(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path, "password")
    assert start(server, order()).kind == "queued"
    jenkins.forget_crumbs()
    assert start(server, order(correlation_id="c2")).kind == "queued"
    assert [seen.status for seen in jenkins.posts()] == [201, 403, 201]


def test_without_csrf_protection_a_password_is_enough(tmp_path: Path) -> None:
    with StubJenkins([StubJob(name="shop-tests")], crumbs=False) as jenkins:
        assert start(client(jenkins, tmp_path, "password"), order()).kind == "queued"


def test_a_delay_reaches_jenkins_in_seconds(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = JenkinsServer("ci", jenkins.settings(tmp_path, delay=7.0))
    start(server, order())
    assert jenkins.posts()[0].form["delay"] == "7sec"


# -- what became of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", LOGINS)
def test_an_order_is_followed_from_the_queue_to_its_build(jenkins: StubJenkins, tmp_path: Path, login: str) -> None:
    server = client(jenkins, tmp_path, login)
    item = start(server, order()).queue_item
    assert item is not None
    wait_until(lambda: server.follow(item, order=order(), deadline=20).why.startswith("Waiting for next"))
    assert server.follow(item, order=order(), deadline=20).kind == "waiting"
    jenkins.queue.release()
    jenkins.queue.wait_for_builds("shop-tests", 1)
    started = server.follow(item, order=order(), deadline=20)
    assert (started.kind, started.number, started.url) == ("started", 1, f"{jenkins.url}job/shop-tests/1/")


def test_a_cancelled_and_a_forgotten_item_are_told_apart(tmp_path: Path) -> None:
    with StubJenkins([StubJob(name="shop-tests")]) as jenkins:
        jenkins.queue.hold()
        server = client(jenkins, tmp_path)
        item = start(server, order()).queue_item
        assert item is not None
        jenkins.queue.cancel(item)
        assert server.follow(item, order=order(), deadline=20).kind == "cancelled"
        jenkins.queue.item_lifetime = 0.0
        assert server.follow(item, order=order(), deadline=20).kind == "gone"


def test_an_item_of_another_order_or_job_is_not_ours(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    start(server, order())
    assert server.follow(1, order=order(), deadline=20).kind == "waiting"
    assert server.follow(1, order=order(correlation_id="c2"), deadline=20).kind == "gone"
    assert server.follow(1, order=order("no-parameters"), deadline=20).kind == "gone"


def test_an_order_is_found_in_the_queue_and_then_among_the_builds(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    start(server, order())
    assert server.find(order(correlation_id="c2"), deadline=10) is None
    found = server.find(order(), deadline=10)
    assert found is not None
    assert (found.kind, found.queue_item) == ("queued", 1)
    jenkins.queue.release()
    jenkins.queue.wait_for_builds("shop-tests", 1)
    found = server.find(order(), deadline=10)
    assert found is not None
    assert (found.kind, found.number, found.url) == ("queued", 1, f"{jenkins.url}job/shop-tests/1/")


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("no-parameters", "has no parameter DEPLOYKIT_CORRELATION_ID"),
        ("shop", "has no parameter DEPLOYKIT_CORRELATION_ID"),
        ("hidden", "404: no such job"),
        ("absent", "404: no such job"),
        ("discovered", "403: deploykit has no permission"),
    ],
)
def test_where_looking_shows_nothing_that_is_said(
    jenkins: StubJenkins, tmp_path: Path, job: str, expected: str
) -> None:
    with pytest.raises(MayNotLook) as caught:
        client(jenkins, tmp_path).find(order(job), deadline=10)
    assert expected in caught.value.problem
    assert f"{job} at " not in caught.value.problem  # doctor and log name job and server before it
    assert caught.value.remedy


def test_a_job_is_described_without_being_built(jenkins: StubJenkins, tmp_path: Path) -> None:
    found = client(jenkins, tmp_path).describe("shop-tests", deadline=10)
    assert (found.buildable, found.parameters) == (True, FOUR)
    assert jenkins.posts() == []
    assert client(jenkins, tmp_path).describe("disabled", deadline=10).buildable is False


def test_one_client_serves_many_threads(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path, "password")
    answers: list[BuildAnswer] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(start(server, order(correlation_id=f"c{n}"))))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.queue_item or 0 for answer in answers) == list(range(1, 9))


def test_the_settings_choose_the_client(jenkins: StubJenkins, tmp_path: Path) -> None:
    assert isinstance(open_server("ci", jenkins.settings(tmp_path)), JenkinsServer)


def test_an_order_without_a_correlation_id_is_not_taken_for_a_build_by_hand(
    jenkins: StubJenkins, tmp_path: Path
) -> None:
    server = client(jenkins, tmp_path)
    by_hand = attrs.evolve(order(correlation_id=""), parameters={})
    start(server, by_hand)
    with pytest.raises(MayNotLook, match="no correlation id"):
        server.find(by_hand, deadline=10)


def test_a_queue_that_cannot_be_read_proves_nothing(jenkins: StubJenkins, tmp_path: Path) -> None:
    server = client(jenkins, tmp_path)
    start(server, order())
    for status, raised in ((500, BuildServerError), (403, MayNotLook)):
        jenkins.fault("status", path="/queue/", status=status)
        with pytest.raises(raised):
            server.find(order(), deadline=10)
    jenkins.queue.release()
    jenkins.queue.wait_for_builds("shop-tests", 1)
    jenkins.fault("status", path="/queue/", status=500)
    assert server.find(order(), deadline=10) is not None  # what is built needs no queue
