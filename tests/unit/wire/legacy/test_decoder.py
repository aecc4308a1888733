"""Every body the original's publishers write is understood, and no text of other people's changes what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

import deploykit
from deploykit.errors import MessageError
from deploykit.messages import (
    AccessGrantRequested,
    BuildFinished,
    BuildStarted,
    Message,
    Notice,
    PackagePublished,
    RefUpdated,
    RevisionCommitted,
)
from deploykit.wire import decode, encode

OLD, NEW, OTHER = "1" * 40, "2" * 40, "3" * 40
ZERO = "0" * 40
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
COMMITS = "/topic/future.git.commits"


def read(body: str | bytes, subject: str | None = "", destination: str = COMMITS, **headers: str) -> Message | None:
    raw = body if isinstance(body, bytes) else body.encode()
    given = {"content-type": "text/plain; charset=UTF-8", "message-id": "T_1@@session@@7"}
    if subject is not None:
        given["subject"] = subject
    return decode(given | {k.replace("_", "-"): v for k, v in headers.items()}, raw, destination, received=NOW)


def git(repo: str = "shop", old: str = OLD, new: str = NEW, ref: str = "refs/heads/main", rest: str = "") -> str:
    return f"repo: {repo}\noldrev: {old}\nnewrev: {new}\nrefname: {ref}\n{rest}"


HEAD = f" {NEW}\nAuthor: Ann <ann@example.org>\nDate: Thu Apr 19 10:00:00 2012 +0100\n\nFix it\n\nMore words.\n\n"


def ref_updated(body: str) -> RefUpdated:
    message = read(body, f"[shop] refs/heads/main {NEW}")
    assert isinstance(message, RefUpdated)
    return message


# -- git and webhooks --------------------------------------------------------------------------------------------------


def test_a_git_push_tells_its_head_commit() -> None:
    message = ref_updated(git(rest=HEAD))
    assert (message.repo, message.ref, message.old, message.new, message.kind) == (
        "shop",
        "refs/heads/main",
        OLD,
        NEW,
        "moved",
    )
    (commit,) = message.commits
    assert (commit.id, commit.author, commit.time) == (NEW, "Ann <ann@example.org>", "Thu Apr 19 10:00:00 2012 +0100")
    assert commit.message == "Fix it\n\nMore words."
    assert message.commit_count == 1


def test_a_deleted_ref_is_told_as_deleted() -> None:
    message = ref_updated(git(new=ZERO))
    assert message.kind == "deleted"
    assert message.commits == ()


def test_a_deleted_ref_tells_who_deleted_it() -> None:
    message = ref_updated(git(new=ZERO, rest=json_line(after=ZERO, commits=[])))
    assert (message.kind, message.pusher, message.commits) == ("deleted", "Ann Example", ())


@pytest.mark.parametrize(
    ("rest", "author", "time"),
    [
        (HEAD.replace("\n", " \n", 3), "Ann <ann@example.org>", "Thu Apr 19 10:00:00 2012 +0100"),
        (f" {NEW}\nDate: today\n\nFix it\n\nMore words.\n", "", "today"),
        (f" {NEW}\nAuthor: Ann\n\nFix it\n\nMore words.\n", "Ann", ""),
        (f" {NEW}\n\nFix it\n\nMore words.\n", "", ""),
    ],
    ids=["blanks-at-the-ends", "no-author", "no-date", "neither"],
)
def test_a_head_commit_is_told_with_what_there_is_of_it(rest: str, author: str, time: str) -> None:
    (commit,) = ref_updated(git(rest=rest)).commits
    assert (commit.id, commit.author, commit.time, commit.message) == (NEW, author, time, "Fix it\n\nMore words.")


def test_a_created_tag_is_told_as_created() -> None:
    assert ref_updated(git(old=ZERO, ref="refs/tags/v1", rest=HEAD)).kind == "created"


def web(*commits: tuple[str, str]) -> str:
    return "".join(f" commit {i}\nAuthor: a@example.org\nDate: 2026-01-01T00:00:00Z\n\t{m}\n\n" for i, m in commits)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("/git.example.org/group/widget", "group/widget"),
        ("/git.example.org:8443/group/sub/widget", "group/sub/widget"),
        ("/ada:PASSWORD@git.example.org/widget", "widget"),
        ("widget", "widget"),
    ],
)
def test_the_name_that_a_webhook_cut_from_a_clone_url_has_no_host(written: str, name: str) -> None:
    assert ref_updated(git(repo=written, rest=HEAD)).repo == name


@pytest.mark.parametrize(
    "written", ["/", "//srv/git/widget", "/host", "/host/", "/host//widget", "/PASSWORD@host/../x"]
)
def test_a_name_without_a_repository_in_it_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(MessageError, match="repo: not a repository name") as refusal:
        ref_updated(git(repo=written, rest=HEAD))
    assert "PASSWORD" not in str(refusal.value)


def test_a_webhook_without_json_tells_its_commits_newest_first() -> None:
    message = ref_updated(git(rest=web((OTHER, "first"), (NEW, "second\n\nwith a body"))))
    assert [(c.id, c.message) for c in message.commits] == [(NEW, "second\n\nwith a body"), (OTHER, "first")]
    assert message.commit_count == 2


def payload(**changes: object) -> dict[str, object]:
    commits = [
        {
            "id": i,
            "message": f"m{i[0]}\n",
            "timestamp": "2026-01-01T00:00:00Z",
            "author": {"name": "Ann", "email": "ann@example.org"},
        }
        for i in (OTHER, NEW)
    ]
    base = {"ref": "refs/heads/main", "before": OLD, "after": NEW, "commits": commits, "user_name": "Ann Example"}
    return base | changes


def json_line(**changes: object) -> str:
    return f"JSON: {json.dumps(payload(**changes))}\n"


def test_a_webhook_with_its_json_line_tells_pusher_count_and_force() -> None:
    message = ref_updated(git(rest=web((NEW, "x")) + json_line(total_commits_count=200, forced=True)))
    assert [c.id for c in message.commits] == [NEW, OTHER]
    assert message.commits[0].author == "Ann <ann@example.org>"
    assert message.commits[0].message == "m2"
    assert (message.pusher, message.commit_count, message.kind) == ("Ann Example", 200, "forced")


@pytest.mark.parametrize(
    "destination", ["", "x", "/topic/\ud800", "/\u20ac" * 60, "/a\u20ac" * 60, "/\x00\n%:", "/" * 999]
)
def test_whatever_the_destination_is_the_message_can_be_written_again(destination: str) -> None:
    for shift in range(12):  # a cut at every place of an escape
        message = decode({"content-type": "text/plain"}, git().encode(), destination + "x" * shift + "\u20ac" * 60)
        assert message is not None
        frame = encode(message)
        assert decode(frame.headers, frame.body) == message


@pytest.mark.parametrize("total", [True, -1, 2.0, "7", None, [], 10**200])
def test_whatever_a_webhook_counts_the_message_can_be_written_again(total: object) -> None:
    message = ref_updated(git(rest=json_line(total_commits_count=total)))
    assert type(message.commit_count) is int
    frame = encode(message)
    assert decode(frame.headers, frame.body) == message


def test_github_names_its_pusher_elsewhere() -> None:
    assert ref_updated(git(rest=json_line(user_name=None, pusher={"name": "octo"}))).pusher == "octo"


def test_of_a_huge_push_the_newest_fifty_commits_are_told_and_all_are_counted() -> None:
    many = [{"id": f"{n:040x}", "message": "m", "timestamp": "t", "author": {}} for n in range(300)]
    message = ref_updated(git(rest=json_line(commits=many)))
    assert len(message.commits) == 50
    assert message.commits[0].id == f"{299:040x}"
    assert message.commit_count == 300


@pytest.mark.parametrize(
    "line",
    [
        "JSON: {not json",
        "JSON: " + "[" * 100_000,
        "JSON: [1]",
        json_line(after=OTHER),
        json_line(ref="refs/heads/evil"),
        'JSON: {"ref": "refs/heads/main", "ref": "x"}',
    ],
    ids=["broken", "bomb", "list", "other-commit", "other-ref", "twice"],
)
def test_a_json_line_in_somebodys_commit_message_changes_nothing(line: str) -> None:
    message = ref_updated(git(rest=web((NEW, f"x\n{line}"))))
    assert (message.ref, message.new, message.pusher) == ("refs/heads/main", NEW, "")
    assert [c.id for c in message.commits] == [NEW]


def test_keys_in_a_commit_message_change_nothing() -> None:
    message = ref_updated(git(rest=HEAD + f"repo: evil\nrefname: refs/heads/evil\nnewrev: {OTHER}\n"))
    assert (message.repo, message.ref, message.new) == ("shop", "refs/heads/main", NEW)


@pytest.mark.parametrize("before", ["\n", "\r\n \r\n", "\ufeff", " \t"])
def test_blanks_before_the_first_line_change_nothing(before: str) -> None:
    message = ref_updated(before + git(rest=HEAD))
    assert (message.repo, message.commits[0].id) == ("shop", NEW)


def test_a_key_given_twice_is_refused_not_chosen_from() -> None:
    with pytest.raises(MessageError, match="repo is given twice"):
        read(f"repo: shop\nrepo: evil\noldrev: {OLD}\nnewrev: {NEW}\nrefname: refs/heads/main\n")


@pytest.mark.parametrize(
    "body",
    [
        git(repo="../../etc"),
        git(ref="main"),
        git(ref="refs/heads/.."),
        git(new="HEAD"),
        git(old=""),
        git(repo="-x"),
    ],
)
def test_names_that_are_none_are_refused_and_not_shown(body: str) -> None:
    with pytest.raises(MessageError) as caught:
        read(body)
    assert "etc" not in str(caught.value)
    assert "HEAD" not in str(caught.value)


def test_a_name_in_another_encoding_is_refused_but_a_text_is_not() -> None:
    with pytest.raises(MessageError, match="refname"):
        read(git().encode().replace(b"main", b"m\xe4in"))
    message = read(git(rest=HEAD).encode().replace(b"Fix", b"F\xecx"))
    assert isinstance(message, RefUpdated)
    assert message.commits[0].message.startswith("F�x")


# -- SVN ---------------------------------------------------------------------------------------------------------------


def svn(project: str = "web", dirs: str = "web/trunk/src/\n", log: str = "Say it\n") -> str:
    return (
        f"repo: code\nrevname: 4711\n Author: jim\nDate: 2012-04-19 10:00:00 +0100 (Thu, 19 Apr 2012)\n"
        f"Project: {project}\n\nDirs:\n{dirs}\n{log}\n"
    )


def revision(body: str) -> RevisionCommitted:
    message = read(body, "[code] 4711 ")
    assert isinstance(message, RevisionCommitted)
    return message


def test_an_svn_revision_is_told_whole() -> None:
    message = revision(svn(dirs="web/trunk/src/\nweb/trunk/doc/\n", log="Say it\n\nrepo: evil\n"))
    assert (message.repo, message.revision, message.author) == ("code", 4711, "jim")
    assert message.committed == datetime(2012, 4, 19, 9, 0, tzinfo=UTC)
    assert message.dirs == ("web/trunk/src/", "web/trunk/doc/")
    assert message.dir_count == 2
    assert message.projects == ("web",)
    assert message.log == "Say it\n\nrepo: evil"


def test_the_log_of_a_revision_that_changed_no_directory_is_no_directory() -> None:
    message = revision(svn(dirs="", log="Say it\n\nmore\n"))
    assert (message.dirs, message.dir_count, message.log) == ((), 0, "Say it\n\nmore")


@pytest.mark.parametrize(
    "body",
    [
        svn().replace("Dirs:", "Dirs: "),
        svn().replace("src/\n\n", "src/\n \n"),
        svn().replace("\n\nDirs", "\n \nDirs"),
        svn().replace("\n", "\r\n"),
        "repo: code\nrevname: 4711\nDirs:\nweb/trunk/src/\n\nSay it\n",
    ],
    ids=["after-dirs", "before-the-log", "before-dirs", "crlf", "nothing-else"],
)
def test_blanks_and_missing_lines_cost_a_revision_neither_directories_nor_log(body: str) -> None:
    message = revision(body)
    assert (message.dirs, message.projects, message.log) == (("web/trunk/src/",), ("web",), "Say it")


def test_a_revision_that_touches_several_projects_tells_all_of_them() -> None:
    message = revision(svn(project="api", dirs="web/trunk/src/\nlib/api/trunk/\nbackend/branches/b1/x/\n"))
    assert message.projects == ("web", "api", "backend")


@pytest.mark.parametrize(
    ("told", "directory"), [("tags", "web/tags/"), ("1.0", "web/tags/1.0/"), ("branches", "web/branches/")]
)
def test_the_originals_wrong_guess_for_tags_and_branches_is_put_right(told: str, directory: str) -> None:
    assert revision(svn(project=told, dirs=f"{directory}\n")).projects == ("web",)


def test_a_frame_that_our_relay_sent_is_of_the_project_that_it_names_alone() -> None:
    several = "web/trunk/src/\nlib/api/trunk/\nbackend/branches/b1/x/\n"
    for project, expected in (("api", ("api",)), ("web\nProject: api", ("web", "api")), ("", ())):
        message = read(svn(project=project, dirs=several), "[code] 7 ", deploykit_id="an-id/1")
        assert isinstance(message, RevisionCommitted)
        assert message.projects == expected
        assert len(message.dirs) == 3


def test_a_project_that_only_the_sender_knows_is_kept() -> None:
    assert revision(svn(project="odd", dirs="somewhere/else/\n")).projects == ("odd",)
    assert revision(svn(project="web\nProject: api", dirs="")).projects == ("web", "api")


def test_a_repository_that_is_one_project_names_none() -> None:
    assert revision(svn(project="", dirs="trunk/src/\n")).projects == ()


def test_what_svnlook_escaped_in_an_empty_locale_is_read_back() -> None:
    assert revision(svn(log="Gr{U+00F6}{U+00DF}e {U+000A} {U+D800}\n")).log == "Größe {U+000A} {U+D800}"


def test_a_date_of_another_form_is_left_out() -> None:
    assert revision(svn().replace("2012-04-19 10:00:00 +0100", "yesterday")).committed is None


# -- Jenkins, packages, access -----------------------------------------------------------------------------------------


def jenkins(status: str, subject: str, repo: str = "shop") -> Message | None:
    body = f"Repo: {repo}\nURL: http://ci.example.org/job/shop-tests/7/\nStatus: {status}\n"
    return read(body, subject, "/topic/future.jenkins.success")


def test_a_begun_build_is_understood() -> None:
    message = jenkins("Start job", f"Begin job 7 - [shop-tests] shop/main {NEW}")
    assert isinstance(message, BuildStarted)
    assert (message.job, message.number, message.repo, message.ref, message.commit) == (
        "shop-tests",
        7,
        "shop",
        "refs/heads/main",
        NEW,
    )
    assert message.url == "http://ci.example.org/job/shop-tests/7/"


@pytest.mark.parametrize(
    ("status", "verb", "outcome"), [("Success", "Complete", "success"), ("Cake", "Fail", "failure")]
)
def test_an_ended_build_tells_its_outcome(status: str, verb: str, outcome: str) -> None:
    message = jenkins(status, f"{verb} job 7 - [a job [x]] shop/topic/y {NEW}")
    assert isinstance(message, BuildFinished)
    assert (message.outcome, message.job, message.ref) == (outcome, "a job [x]", "refs/heads/topic/y")


def test_a_build_of_something_without_branch_or_commit_is_understood() -> None:
    message = jenkins("Success", "Complete job 7 - [svn-job]  ", repo="")
    assert isinstance(message, BuildFinished)
    assert (message.job, message.repo, message.ref, message.commit) == ("svn-job", None, None, None)


@pytest.mark.parametrize(
    ("built", "ref", "commit"),
    [
        ("shop/main", "refs/heads/main", None),
        (f" {NEW}", None, NEW),
        (f"detached {NEW}", None, NEW),
        (f"shop/tags/v1 {NEW}", "refs/tags/v1", NEW),
        (f"shop/a]b {NEW}", "refs/heads/a]b", NEW),
    ],
)
def test_a_builds_branch_and_commit_are_not_taken_for_each_other(
    built: str, ref: str | None, commit: str | None
) -> None:
    message = jenkins("Success", f"Complete job 7 - [folder/job] {built}")
    assert isinstance(message, BuildFinished)
    assert (message.job, message.ref, message.commit) == ("folder/job", ref, commit)


def test_a_build_whose_subject_was_lost_is_named_by_its_body() -> None:
    message = jenkins("Success", "")
    assert isinstance(message, BuildFinished)
    assert (message.job, message.number) == ("shop", 7)


def test_a_package_is_taken_from_its_file_name() -> None:
    message = read("package: shop_1%3a2.0-1_amd64.deb\nExporting indices...\n", "Package update: [shop]", "/topic/p")
    assert isinstance(message, PackagePublished)
    assert (message.name, message.version, message.architecture) == ("shop", "1:2.0-1", "amd64")
    assert (message.file, message.detail) == ("shop_1%3a2.0-1_amd64.deb", "Exporting indices...")


def test_a_package_path_is_cut_to_its_file() -> None:
    message = read("package: ../../etc/odd.deb\n", "")
    assert isinstance(message, PackagePublished)
    assert (message.name, message.file) == ("odd", "odd.deb")


CANARY = "c4nary: pass word"


def access(user: str = "jane", password: str = CANARY) -> Message | None:
    return read(f"Site: intranet\nUser: {user}\nPassword: {password}\n", f"Allow access to intranet for {user}")


def test_an_access_grant_carries_its_password_unseen() -> None:
    message = access()
    assert isinstance(message, AccessGrantRequested)
    assert (message.site, message.user, message.password) == ("intranet", "jane", CANARY)
    assert message.password_hash is None
    for shown in (repr(message), str(message), message.summary, repr(deploykit.wire.redact(message))):
        assert "c4nary" not in shown


@pytest.mark.parametrize("user", ["a:b", "a b", "", "-x", "a\tb"])
def test_a_refused_access_grant_does_not_tell_its_password(user: str) -> None:
    with pytest.raises(MessageError) as caught:
        access(user=user)
    assert "c4nary" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_with_control_characters_is_refused_untold() -> None:
    with pytest.raises(MessageError) as caught:
        access(password="c4nary\x07")
    assert "c4nary" not in repr(caught.value)


# -- keepalives, human lines, the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["\n", "", " \r\n"])
def test_a_keepalive_means_nothing(body: str) -> None:
    assert read(body, None) is None
    assert decode({}, body.encode()) is None


def test_the_human_line_is_a_notice() -> None:
    message = read("node-1 fetched change\n", "Talking to eventbot", "/topic/future.events.stompgit")
    assert isinstance(message, Notice)
    assert message.text == "node-1 fetched change"
    assert message.source == "legacy/topic/future.events.stompgit"


def test_a_line_on_an_events_topic_is_a_notice_without_its_subject() -> None:
    assert isinstance(read("[shop] refs/heads/main 22", None, "/topic/future.events.gitlab"), Notice)


@pytest.mark.parametrize(
    "body",
    ["hello", "repo: shop\n", '{"specversion":"1.0"}', "\x00\x01", git(new=""), git(ref=""), "repo: x\nrevname: \n"],
)
def test_what_no_publisher_of_the_original_writes_is_refused(body: str) -> None:
    with pytest.raises(MessageError):
        read(body)


@pytest.mark.parametrize("status", ["", "Odd"])
def test_a_build_without_a_known_status_is_a_line_for_people(status: str) -> None:
    """The original's helper wrote an empty `Status:` where it was called without an option."""
    message = jenkins(status, f" job 7 - [shop-tests] shop/main {NEW}")
    assert isinstance(message, Notice)
    assert "job 7 - [shop-tests] shop/main" in message.text
    assert "http://ci.example.org/job/shop-tests/7/" in message.text


def test_a_build_that_began_on_a_topic_without_a_name_is_understood() -> None:
    body = "Repo: shop\nURL: http://ci.example.org/job/shop-tests/7/\nStatus: Start job\n"
    assert isinstance(read(body, f"Begin job 7 - [shop-tests] shop/main {NEW}", "/topic/"), BuildStarted)


def test_gits_own_name_of_a_remote_is_no_repository() -> None:
    message = jenkins("Success", f"Complete job 7 - [shop-tests] origin/main {NEW}", repo="origin")
    assert isinstance(message, BuildFinished)
    assert (message.repo, message.ref, message.commit) == (None, "refs/heads/main", NEW)


def test_a_package_without_a_name_is_a_line_for_people() -> None:
    message = read("package: \nExporting indices...\n", "Package update: []", "/topic/p")
    assert isinstance(message, Notice)
    assert message.text == "a package without a name: Exporting indices..."


def test_an_access_to_no_site_is_a_line_that_shows_nothing_of_it() -> None:
    """The original's form sends it where its session has ended. What cannot be read would be kept as a dead letter."""
    message = read(f"Site: \nUser: jane\nPassword: {CANARY}\n", "Allow access to  for jane")
    assert isinstance(message, Notice)
    assert "c4nary" not in repr(message)
    assert "jane" not in message.text


def test_the_same_delivery_makes_the_same_id_and_another_makes_another() -> None:
    first, again = ref_updated(git()), ref_updated(git())
    other = read(git(), f"[shop] refs/heads/main {NEW}", message_id="T_1@@session@@8")
    assert first.id == again.id
    assert other is not None
    assert other.id != first.id


def test_a_message_without_a_broker_id_is_never_taken_for_another() -> None:
    bare = {"content-type": "text/plain"}
    assert decode(bare, git().encode()).id != decode(bare, git().encode()).id  # type: ignore[union-attr]


def test_the_brokers_time_stamp_is_the_time_and_ours_where_there_is_none() -> None:
    stamped = read(git(), timestamp="1334829600000")
    assert stamped is not None
    assert stamped.time == datetime(2012, 4, 19, 10, 0, tzinfo=UTC)
    plain = read(git(), timestamp="soon")
    assert plain is not None
    assert plain.time == NOW


def test_a_legacy_body_over_the_limit_is_refused() -> None:
    with pytest.raises(MessageError, match="over the limit"):
        read("x" * (1024 * 1024 + 1))
