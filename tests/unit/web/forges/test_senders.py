"""What senders differ in: which requests a change of a ref makes, how names are written, what they leave out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploykit.errors import WebhookRefused
from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges import ForgeDelivery, parse
from tests.support.forges import DELIVERY, FORGES, NEW, OLD, ZERO, ForgedChange, ForgedCommit, forged, requests_for

CHANGES = [
    ForgedChange(ref, old, new)
    for ref in ("refs/heads/topic/a", "refs/tags/v1/rc.2")
    for old, new in ((ZERO, NEW), (OLD, NEW), (OLD, ZERO))
]


def read(forge: Forge, event: str = "push", **about: Any) -> ForgeDelivery:
    """What a forged request means."""
    request = forged(forge, event, **about)
    return parse(forge, request.lowered, json.loads(request.body))


@pytest.mark.parametrize(
    ("forge", "change"),
    # Gogs sends nothing for a tag that was moved.
    [(f, c) for f in FORGES for c in CHANGES if (f, c.kind, c.old, c.new) != ("gogs", "tag", OLD, NEW)],
)
def test_of_all_requests_for_one_change_exactly_one_counts(forge: Forge, change: ForgedChange) -> None:
    deliveries = [parse(forge, r.lowered, json.loads(r.body)) for r in requests_for(forge, change)]
    (push,) = [push for delivery in deliveries for push in delivery.pushes]
    assert (push.ref, push.new) == (change.ref, change.new)
    assert push.old in (change.old, ZERO)
    assert len({delivery.id for delivery in deliveries}) == len(deliveries)


@pytest.mark.parametrize("forge", FORGES)
def test_a_deleted_ref_has_no_commits_and_is_not_forced(forge: Forge) -> None:
    commits = [ForgedCommit(OLD)]
    (push,) = read(forge, changes=[ForgedChange("refs/heads/main", OLD, ZERO)], commits=commits, forced=True).pushes
    assert (push.commits, push.commit_count, push.forced) == ((), 0, False)


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea", "forgejo", "gogs", "bitbucket", "azure"])
def test_commits_are_newest_first_whatever_the_forge_does(forge: Forge) -> None:
    commits = [ForgedCommit("c1" * 20, "one"), ForgedCommit("c2" * 20, "two"), ForgedCommit(NEW, "three")]
    (push,) = read(forge, commits=commits).pushes
    assert [commit.message for commit in push.commits] == ["three", "two", "one"]


@pytest.mark.parametrize("forge", ["github", "gitea", "gogs", "azure"])
def test_of_more_commits_than_a_message_carries_the_newest_are_kept_and_all_are_counted(forge: Forge) -> None:
    commits = [ForgedCommit(f"{i:040x}", f"Step {i}") for i in range(1, 80)] + [ForgedCommit(NEW, "Step 80")]
    (push,) = read(forge, commits=commits).pushes
    assert [commit.message for commit in push.commits] == [f"Step {i}" for i in range(80, 30, -1)]
    assert push.commit_count == 80


@pytest.mark.parametrize("forge", ["gitlab", "gitea", "forgejo", "gogs"])
def test_a_total_that_the_forge_sends_counts_those_it_leaves_out(forge: Forge) -> None:
    assert read(forge, total=500).pushes[0].commit_count == 500


def test_only_a_total_that_is_a_number_counts() -> None:
    request = forged("gitlab")
    for total in ("7", True, -3, 1.5, None, 10**299):
        payload = json.loads(request.body) | {"total_commits_count": total}
        (push,) = parse("gitlab", request.lowered, payload).pushes
        assert push.commit_count == (2**53 - 1 if total == 10**299 else 1)


def test_the_order_of_commits_is_seen_from_where_the_new_id_stands() -> None:
    commits = [ForgedCommit(NEW, "newest"), ForgedCommit("c1" * 20, "older")]
    assert [c.message for c in read("github", commits=commits).pushes[0].commits] == ["newest", "older"]


def test_a_branch_of_bitbucket_that_has_another_name_now_is_one_that_is_gone_and_one_that_is_new() -> None:
    request = forged("bitbucket", changes=[ForgedChange("refs/heads/master", NEW, NEW)])
    payload = json.loads(request.body)
    payload["push"]["changes"][0]["new"]["name"] = "main"
    pushes = parse("bitbucket", request.lowered, payload).pushes
    assert [(p.ref, p.old, p.new) for p in pushes] == [
        ("refs/heads/master", NEW, ZERO),
        ("refs/heads/main", ZERO, NEW),
    ]


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea", "bitbucket-dc", "azure"])
def test_a_push_from_nothing_to_nothing_is_refused(forge: Forge) -> None:
    with pytest.raises(WebhookRefused, match="zeros"):
        read(forge, changes=[ForgedChange("refs/heads/main", ZERO, ZERO)])


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea", "bitbucket", "bitbucket-dc", "azure", "generic"])
def test_a_repository_of_sha_256_has_zeros_as_long_as_its_ids(forge: Forge) -> None:
    (push,) = read(forge, changes=[ForgedChange("refs/heads/main", ZERO, "ab" * 32)], commits=[]).pushes
    assert (push.old, push.new) == ("0" * 64, "ab" * 32)


@pytest.mark.parametrize("forge", ["gogs", "gitea"])
def test_a_short_name_that_looks_like_a_full_one_stays_below_its_kind(forge: Forge) -> None:
    request = forged(forge, "delete")
    payload = json.loads(request.body) | {"ref": "refs/heads/main"}
    (push,) = parse(forge, request.lowered, payload).pushes
    assert push.ref == "refs/heads/refs/heads/main"


@pytest.mark.parametrize(
    "ref", ["main", "HEAD", "refs/heads/a..b", "refs/heads/a b", "refs/heads/x.lock", "refs/heads/"]
)
@pytest.mark.parametrize("forge", ["github", "gitlab", "bitbucket-dc", "azure", "generic"])
def test_a_ref_that_is_not_full_or_not_acceptable_is_refused(forge: Forge, ref: str) -> None:
    with pytest.raises(WebhookRefused, match="not an acceptable ref"):
        read(forge, changes=[ForgedChange(ref, OLD, NEW)])


@pytest.mark.parametrize("repository", ["group/widget", "group/sub/deeper/widget", "Grüppe/widget"])
def test_sub_groups_are_part_of_the_name(repository: str) -> None:
    assert read("gitlab", repository=repository).repository == repository


# -- events ------------------------------------------------------------------------------------------------------------


def test_forgejo_and_gitea_are_known_by_their_own_headers_and_by_what_they_came_from() -> None:
    request = forged("forgejo")
    for kept in ("forgejo", "gitea", "gogs", "github"):
        headers = {name: value for name, value in request.lowered.items() if kept in name}
        assert parse("forgejo", headers, json.loads(request.body)).id == DELIVERY


def test_the_own_header_counts_where_several_name_an_event() -> None:
    request = forged("gitea")
    headers = request.lowered | {"x-gitea-event": "issues"}
    assert parse("gitea", headers, json.loads(request.body)).ignored


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea", "bitbucket", "bitbucket-dc", "azure"])
def test_an_event_about_no_ref_is_ignored_whatever_it_holds(forge: Forge) -> None:
    headers = dict.fromkeys(("x-github-event", "x-gitea-event", "x-gitlab-event", "x-event-key"), "issues")
    delivery = parse(forge, headers, {"eventType": "issues"})
    assert (delivery.event, delivery.ignored, delivery.pushes) == ("issues", "no event about refs", ())


def test_gitlab_trusts_the_signed_body_rather_than_the_header() -> None:
    request = forged("gitlab")
    delivery = parse("gitlab", {"x-gitlab-event": "Issue Hook"}, json.loads(request.body))
    assert (delivery.event, len(delivery.pushes)) == ("push", 1)


def test_the_signed_id_of_a_delivery_goes_before_the_unsigned() -> None:
    headers = {"webhook-id": "msg_1", "idempotency-key": "other"}
    assert parse("gitlab", headers, json.loads(forged("gitlab").body)).id == "msg_1"


@pytest.mark.parametrize("unusable", ["x" * 201, "a\x00b", "ümlaut", " "])
def test_an_id_that_is_not_usable_is_none(unusable: str) -> None:
    request = forged("github")
    assert parse("github", request.lowered | {"x-github-delivery": unusable}, json.loads(request.body)).id == ""


@pytest.mark.parametrize(
    ("forge", "action"), [("github", "synchronize"), ("gitea", "label_updated"), ("gitlab", "approved")]
)
def test_only_a_merge_request_that_changed_its_state_is_worth_a_line(forge: Forge, action: str) -> None:
    request = forged(forge, "merge")
    payload = json.loads(request.body)
    (payload["object_attributes"] if forge == "gitlab" else payload)["action"] = action
    delivery = parse(forge, request.lowered, payload)
    assert (delivery.ignored, delivery.notice) == ("a merge comes as a push, too", "")


def test_a_merge_request_of_an_old_gitlab_says_what_it_does_not_know() -> None:
    delivery = parse("gitlab", {}, {"object_kind": "merge_request", "object_attributes": {"state": "opened"}})
    assert delivery.notice == "Merge request (unknown) opened by unknown: unknown:unknown -> unknown:unknown"


def test_a_title_cannot_break_the_line() -> None:
    notice = read("github", "merge", title="a\nb\x1b[2J\u202e" + "x" * 5000).notice
    assert notice.isprintable()
    assert len(notice) <= 300


# -- Data Center and Azure: one list of commits, several refs ----------------------------------------------------------


def test_data_center_that_sends_commits_with_one_change_has_them_read() -> None:
    request = forged("bitbucket-dc")
    author = {"name": "ada", "emailAddress": "ada@example.org"}
    commit = {"id": NEW, "message": "Serve\n", "author": author, "authorTimestamp": 1764493200000}
    (push,) = parse("bitbucket-dc", request.lowered, json.loads(request.body) | {"commits": [commit]}).pushes
    (read_commit,) = push.commits
    assert (read_commit.author, read_commit.time) == ("ada <ada@example.org>", "2025-11-30T09:00:00+00:00")


@pytest.mark.parametrize("stamp", [True, -1, 2**53, 10**299, 1.5, "yesterday", "2026-13-40T00:00:00Z", None, []])
def test_a_time_that_is_none_is_left_out(stamp: object) -> None:
    request = forged("bitbucket-dc")
    payload = json.loads(request.body) | {"commits": [{"id": NEW, "message": "Serve", "authorTimestamp": stamp}]}
    (push,) = parse("bitbucket-dc", request.lowered, payload).pushes
    assert [(commit.id, commit.time) for commit in push.commits] == [(NEW, "")]


@pytest.mark.parametrize("forge", ["github", "bitbucket", "azure"])
def test_texts_of_commits_are_cut_to_what_a_message_carries(forge: Forge) -> None:
    commit = ForgedCommit(NEW, "m" * 99_999, "a" * 99_999, "b" * 99_999)
    (read_commit,) = read(forge, commits=[commit]).pushes[0].commits
    assert (len(read_commit.message), len(read_commit.author)) == (2000, 200)


def test_a_mirror_of_data_center_that_lists_nothing_because_it_is_too_much_is_told_to_people() -> None:
    request = forged("bitbucket-dc")
    payload = json.loads(request.body) | {"eventKey": "mirror:repo_synchronized"}
    assert len(parse("bitbucket-dc", request.lowered, payload).pushes) == 1
    delivery = parse("bitbucket-dc", request.lowered, payload | {"changes": [], "refLimitExceeded": True})
    assert "too many" in delivery.ignored
    assert delivery.notice == "group/widget: many refs changed, none is announced"


def test_azure_gives_commits_to_no_ref_where_several_changed() -> None:
    changes = [ForgedChange("refs/heads/a", OLD, NEW), ForgedChange("refs/heads/b", OLD, NEW)]
    assert [push.commits for push in read("azure", changes=changes).pushes] == [(), ()]
    gone = ForgedChange("refs/heads/b", OLD, ZERO)
    assert [len(push.commits) for push in read("azure", changes=[changes[0], gone]).pushes] == [1, 0]


# -- generic -----------------------------------------------------------------------------------------------------------


def test_a_mapping_reaches_into_lists_and_objects_and_never_beyond() -> None:
    payload = {"a": [{"b": {"c": "group/widget"}}], "ref": "refs/heads/main", "new": NEW}
    mapping = GenericMapping(repository="a.0.b.c")
    assert parse("generic", {}, payload, mapping).repository == "group/widget"
    for path in ("a.1.b.c", "a.x.b.c", "a.0.b.c.d", "a.-1.b.c", "a." + "9" * 5000, "", ".", "a..b"):
        with pytest.raises(WebhookRefused):
            parse("generic", {}, payload, GenericMapping(repository=path))


def test_an_old_id_that_is_there_and_wrong_is_refused() -> None:
    payload = {"repository": "group/widget", "ref": "refs/heads/main", "new": NEW, "old": "HEAD~1"}
    with pytest.raises(WebhookRefused, match="old: not an object id"):
        parse("generic", {}, payload)


def test_a_short_ref_is_refused_with_what_is_expected() -> None:
    payload = {"repository": "group/widget", "ref": "main", "new": NEW}
    with pytest.raises(WebhookRefused, match="expected refs/heads/NAME"):
        parse("generic", {}, payload)
