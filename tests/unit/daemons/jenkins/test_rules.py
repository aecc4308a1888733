"""Which pushes start which builds, with which parameters; and why the others do not."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.config.refpattern import compile_ref_pattern
from deploykit.daemons.jenkins.rules import BuildPlan, BuildRules, event_key, event_key_of, filled_in
from deploykit.errors import InvalidName, SettingsError
from deploykit.messages import Message, Notice, RevisionCommitted
from deploykit.names import ZERO_ID, ZERO_ID_SHA256, RepoName, parse_ref_name
from deploykit.settings import JobSettings
from deploykit.settings.jenkins import PARAMETER_NAMES
from deploykit.wire import Frame, decode, encode
from deploykit.wire.legacy import legacy_frames
from tests.support.buildorders import NEW, OLD, SHOP, jenkins, job, push


def plan(message: Message | None, *jobs: JobSettings) -> BuildPlan:
    key = "none" if message is None else event_key(message, legacy=False)
    return BuildRules(jenkins(*jobs)).plan(message, key)


def reasons(found: BuildPlan) -> list[str]:
    return [each.reason for each in found.left_out]


def names(found: BuildPlan) -> list[str]:
    return [build.order.job for build in found.builds]


def test_a_push_starts_every_job_of_its_repository_with_the_four_parameters_of_the_recipe() -> None:
    found = plan(push(correlation_id="c-1"), job(), job("shop-docs"), job("other", repo=RepoName("other")))
    assert names(found) == ["shop-tests", "shop-docs"]
    assert dict(found.builds[0].order.parameters) == {
        "DEPLOYKIT_CORRELATION_ID": "c-1",
        "DEPLOYKIT_REPO": "shop",
        "DEPLOYKIT_REF": "refs/heads/main",
        "DEPLOYKIT_COMMIT": NEW,
    }
    assert found.builds[0].order.server == "ci"
    assert found.builds[0].subject == f"[shop] refs/heads/main {NEW}"


def test_a_push_without_a_correlation_id_is_tied_by_its_own_id() -> None:
    message = push()
    assert plan(message).builds[0].order.correlation_id == message.id


@pytest.mark.parametrize("zeros", [ZERO_ID, ZERO_ID_SHA256])
def test_a_delete_is_never_built(zeros: str) -> None:
    found = plan(push(new=zeros), job(refs=("*",)))
    assert not found.builds
    assert reasons(found) == ["refs/heads/main was deleted: deletes are never built"]


@pytest.mark.parametrize("message", [None, Notice(text="hello")])
def test_what_is_no_push_starts_nothing(message: Message | None) -> None:
    found = plan(message)
    assert not found.builds
    assert reasons(found)[0].startswith("no push and no revision: ")


def test_a_repository_without_a_job_is_explained() -> None:
    found = plan(push(repo=RepoName("shpo")))
    assert reasons(found) == ["no job is for repository shpo (jobs are for: shop)"]


@pytest.mark.parametrize(
    ("ref", "changes", "why"),
    [
        ("refs/heads/main", {}, ""),
        ("refs/heads/topic/a/b", {}, ""),
        ("refs/tags/v1", {}, ""),
        ("refs/notes/commits", {}, 'refs/notes/commits matches none of refs = ["refs/heads/*", "refs/tags/*"]'),
        ("refs/tags/v1", {"refs": ("refs/heads/*",)}, 'refs/tags/v1 matches none of refs = ["refs/heads/*"]'),
        (
            "refs/heads/wip/x",
            {"ignore": ("refs/heads/wip/*",)},
            'refs/heads/wip/x matches ignore = ["refs/heads/wip/*"]',
        ),
        ("refs/heads/wipe", {"ignore": ("refs/heads/wip/*",)}, ""),
        ("refs/tags/v1", {"ignore_refs": "tags"}, 'ignore_refs = "tags" is found in refs/tags/v1'),
        ("refs/heads/no-tags", {"ignore_refs": "^refs/tags/"}, ""),
        (
            "refs/heads/Main",
            {"refs": ("refs/heads/main",)},
            'refs/heads/Main matches none of refs = ["refs/heads/main"]',
        ),
    ],
)
def test_a_ref_is_built_or_left_out_for_a_reason(ref: str, changes: dict[str, Any], why: str) -> None:
    found = plan(push(ref), job(**changes))
    assert len(found.builds) == (not why)
    assert reasons(found) == ([why] if why else [])


def test_an_absent_ignore_refs_builds_all() -> None:
    """The original's matched everything then: a repository without it was never built."""
    assert plan(push(), job(ignore_refs="")).builds


def test_no_expression_takes_long_on_a_hostile_name() -> None:
    hostile = compile_ref_pattern("(a+)+$|(a|a)*b|([a-z]+)*x")
    begun = time.thread_time()
    hostile(f"refs/heads/{'a' * 1000}!")
    plan(push(f"refs/heads/{'a' * 1000}!"), job(ignore=(f"refs/heads/{'a*' * 30}b",)))
    assert time.thread_time() - begun < 2


def test_an_expression_that_needs_backtracking_is_refused() -> None:
    with pytest.raises(SettingsError, match="not accepted by google-re2"):
        compile_ref_pattern(r"(?!main)")


def test_parameters_are_added_to_the_standard_ones_and_may_replace_them() -> None:
    more = {
        "KIND": "tests of {repo}",
        "DEPLOYKIT_REF": "{ref_short}",
        "WHO": "{pusher}",
        "WAS": "{old}",
        "SVN": "{revision}",
    }
    found = plan(push("refs/heads/topic/x", old=OLD), job(parameters=more)).builds[0].order.parameters
    assert found["KIND"] == "tests of shop"
    assert found["DEPLOYKIT_REF"] == "topic/x"
    assert (found["WHO"], found["WAS"], found["SVN"]) == ("ada", OLD, "")
    assert found["DEPLOYKIT_COMMIT"] == NEW


def test_a_job_without_parameters_gets_none() -> None:
    assert plan(push(), job(standard_parameters=False)).builds[0].order.parameters == {}


def test_a_branch_of_a_multibranch_project_is_one_part_of_the_jobs_name() -> None:
    found = plan(push("refs/heads/feature/login"), job(multibranch=True)).builds[0]
    assert (found.order.job, found.job) == ("shop-tests/feature%2Flogin", "shop-tests")


def test_copies_of_an_event_have_one_key_and_a_second_push_of_the_commit_another() -> None:
    message = push()
    again = push()
    keys = {plan(each).builds[0].key for each in (message, message, attrs.evolve(message, pusher="eve"))}
    assert len(keys) == 1
    assert plan(again).builds[0].key not in keys


def test_one_event_has_a_key_for_each_job_and_server() -> None:
    jobs = (job(server="ci"), job("b", server="ci"), job(server="two"))
    builds = BuildRules(jenkins(*jobs, servers=("ci", "two"))).plan(push(), "e").builds
    assert len({build.key for build in builds}) == 3


@pytest.mark.parametrize("legacy", [False, True])
def test_a_build_is_renewed_by_other_settings_under_its_key(legacy: bool) -> None:
    frame = encode(push(), legacy=legacy)
    frame = Frame({**frame.headers, "message-id": "m-1"}, frame.body)
    message = decode(frame.headers, frame.body, "/topic/x")
    assert message is not None
    (before,) = BuildRules(jenkins(job())).plan(message, event_key_of(message, frame.headers)).builds
    after = BuildRules(jenkins(job(parameters={"KIND": "x"}))).renewed(before, "/topic/x", frame)
    assert after.key == before.key
    assert after.order.parameters == {**before.order.parameters, "KIND": "x"}
    assert BuildRules(jenkins(job("other"))).renewed(before, "/topic/x", frame) == before


# -- Subversion --------------------------------------------------------------------------------------------------------


def revision(*projects: str, number: int = 7, **changes: object) -> RevisionCommitted:
    made = RevisionCommitted(repo=SHOP, revision=number, author="ada", projects=projects)
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def test_a_revision_starts_one_build_for_each_project_of_the_job() -> None:
    found = plan(revision("web", "lib", "web-admin"), job(projects=("web*",)))
    assert [build.order.parameters["DEPLOYKIT_PROJECT"] for build in found.builds] == ["web", "web-admin"]
    assert [build.project for build in found.builds] == ["web", "web-admin"]
    assert found.builds[0].order.parameters["DEPLOYKIT_REVISION"] == "7"
    assert "DEPLOYKIT_COMMIT" not in found.builds[0].order.parameters
    assert found.builds[0].subject == "[shop] 7"


def test_a_revision_that_touches_no_project_of_the_job_is_explained() -> None:
    assert reasons(plan(revision("web"), job(projects=("lib",)))) == [
        'r7 touches no project of ["lib"] (touched: web)',
    ]


def test_a_job_without_projects_is_built_once_for_each_revision() -> None:
    assert len(plan(revision("web", "lib")).builds) == 1
    assert plan(revision("web")).builds[0].order.parameters["DEPLOYKIT_PROJECT"] == "web"
    assert plan(revision("web", "lib")).builds[0].order.parameters["DEPLOYKIT_PROJECT"] == ""


@pytest.mark.parametrize("changes", [{"projects": ("*",)}, {}])
def test_the_frames_of_a_legacy_revision_ask_for_each_build_once(changes: dict[str, Any]) -> None:
    """One frame for each project; those of the original's hook decode to all of them, each under an id of its own."""
    rules = BuildRules(jenkins(job(**changes)))
    frames = [revision("a", "b", "c", id=f"legacy-{number}") for number in range(3)]
    keys = [b.key for f in frames for b in rules.plan(f, event_key(f, legacy=True, sent_id=f"s-{f.id}")).builds]
    assert len(set(keys)) == (3 if changes else 1)


def heard(message: RevisionCommitted, *jobs: JobSettings) -> BuildPlan:
    """What a build daemon makes of the frames of our hook, as they come over the bus."""
    rules = BuildRules(jenkins(*jobs))
    found = BuildPlan()
    for frame in legacy_frames(message):
        again = decode(frame.headers, frame.body, "/topic/future.git.commits")
        assert again is not None
        found = attrs.evolve(
            found, builds=(*found.builds, *rules.plan(again, event_key_of(again, frame.headers)).builds)
        )
    return found


def test_a_legacy_revision_in_several_projects_is_as_many_builds_and_no_more() -> None:
    message = revision("a", "b", "c", dirs=("a/trunk/", "b/trunk/x/", "c/branches/y/"))
    found = heard(message, job(projects=("*",)))
    assert [build.project for build in found.builds] == ["a", "b", "c"]
    assert len({build.key for build in found.builds}) == 3


def test_a_job_for_a_whole_repository_is_asked_for_once_and_for_no_project() -> None:
    message = revision("a", "b", dirs=("a/trunk/", "b/trunk/x/"))
    found = heard(message, job())
    assert len({build.key for build in found.builds}) == 1
    assert {build.order.parameters["DEPLOYKIT_PROJECT"] for build in found.builds} == {""}
    assert heard(revision("a", dirs=("a/trunk/",)), job()).builds[0].order.parameters["DEPLOYKIT_PROJECT"] == "a"


def test_the_key_of_a_legacy_push_is_the_relays_id_or_else_the_brokers() -> None:
    message = push(id="legacy-1")
    assert event_key(message, legacy=True, sent_id="r-1") == event_key(push(id="legacy-2"), legacy=True, sent_id="r-1")
    assert event_key(message, legacy=True) != event_key(push(id="legacy-2"), legacy=True)


# -- other people's names ----------------------------------------------------------------------------------------------


_PIECES = ["{ref}", "{commit}", "{nope}", "{", "}", "{{", "%7B", "x", " ", "\u202e", "&a=b", "$(id)"]


@given(st.lists(st.sampled_from(_PIECES), max_size=6).map("".join), st.sampled_from(sorted(PARAMETER_NAMES)))
def test_a_value_is_never_read_as_a_template(value: str, name: str) -> None:
    values = {**dict.fromkeys(PARAMETER_NAMES, "other"), name: value}
    assert filled_in(f"a{{{name}}}b", values) == f"a{value}b"


@given(st.text(min_size=1, max_size=60))
def test_no_ref_leaves_its_place_in_the_jobs_name_or_adds_a_parameter(text: str) -> None:
    try:
        ref = parse_ref_name(f"refs/heads/{text}")
    except InvalidName:
        return
    (build,) = plan(push(ref), job("team/shop", multibranch=True)).builds
    assert build.order.job.startswith("team/shop/")
    assert build.order.job.count("/") == 2
    assert build.order.job.rpartition("/")[2] not in ("", ".", "..")
    assert set(build.order.parameters) == {f"DEPLOYKIT_{n}" for n in ("CORRELATION_ID", "REPO", "REF", "COMMIT")}
    assert build.order.parameters["DEPLOYKIT_REF"] == ref
