"""What we write for the original's daemons, read as they read it: by the subject, and by the first colon of lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import attrs
import pytest

from deploykit.errors import MessageError
from deploykit.messages import (
    AccessGrantRequested,
    AccessRevokeRequested,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    Commit,
    DeployRequested,
    Message,
    MirrorUpdated,
    Notice,
    PackagePublished,
    RefUpdated,
    RevisionCommitted,
    Unknown,
)
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.wire import decode, encode
from deploykit.wire.legacy import encode_legacy, legacy_frames

OLD, NEW = ObjectId("1" * 40), ObjectId("2" * 40)
REPO, REF = RepoName("shop"), RefName("refs/heads/topic/x")
HOSTILE = "Fix\nrepo: evil\nrefname: refs/heads/evil\nJSON: {}\nProject: evil\n repo : x"


def push(message: str = "Fix it", **changes: object) -> RefUpdated:
    commit = Commit(id=NEW, author="Jürgen <j@example.org>", time="2026-01-01T00:00:00Z", message=message)
    base: dict[str, object] = {
        "repo": REPO,
        "ref": REF,
        "old": OLD,
        "new": NEW,
        "pusher": "jw",
        "commits": (commit,),
        "commit_count": 1,
    }
    return RefUpdated(**(base | changes))  # type: ignore[arg-type]


def as_the_original_reads(body: bytes) -> dict[str, list[str]]:
    """Each line split at its first colon, the key as it is or trimmed: the most that a reader could find."""
    found: dict[str, list[str]] = {}
    for line in body.decode().splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def test_the_mirror_updater_finds_branch_and_commit_in_the_subject_and_a_json_line() -> None:
    frame = encode(push(), legacy=True)
    assert frame.headers["subject"] == f"[shop] refs/heads/topic/x {NEW}"
    assert frame.headers["content-type"] == "text/plain; charset=UTF-8"
    assert frame.headers["subject"].split(" ", 2)[1].removeprefix("refs/heads/") == "topic/x"
    payload = json.loads(as_the_original_reads(frame.body)["JSON"][0])
    assert (payload["ref"], payload["before"], payload["after"]) == (REF, OLD, NEW)
    assert payload["repository"]["name"] == "shop"
    assert payload["commits"][0]["author"] == {"name": "Jürgen", "email": "j@example.org"}


def test_the_jenkins_trigger_finds_repo_and_ref_once_in_the_first_lines() -> None:
    frame = encode(push(), legacy=True)
    lines = frame.body.decode().split("\n")
    assert lines[:4] == ["repo: shop", f"oldrev: {OLD}", f"newrev: {NEW}", f"refname: {REF}"]


@pytest.mark.parametrize("title", HOSTILE.split("\n"))
def test_no_commit_message_can_pass_for_a_key(title: str) -> None:
    found = as_the_original_reads(encode(push(title, pusher="x\nrepo: evil"), legacy=True).body)
    assert found["repo"] == ["shop"]
    assert found["refname"] == [REF]
    assert len(found["JSON"]) == 1
    assert "Project" not in found


def test_the_json_line_is_one_line_of_ascii_whatever_the_message_holds() -> None:
    frame = encode(push("a\nb\u2028c\x85d ß"), legacy=True)
    line = next(line for line in frame.body.split(b"\n") if line.startswith(b"JSON:"))
    assert line.isascii()
    assert json.loads(line[5:])["commits"][0]["message"] == "a\nb\u2028c\x85d ß"


def test_a_deleted_ref_is_written_with_forty_zeros() -> None:
    frame = encode(push(new=ObjectId("0" * 40), commits=(), commit_count=0), legacy=True)
    assert frame.headers["subject"].endswith(" " + "0" * 40)
    assert json.loads(as_the_original_reads(frame.body)["JSON"][0])["deleted"] is True


def svn(projects: tuple[str, ...] = ("web", "api"), log: str = "Say it") -> RevisionCommitted:
    return RevisionCommitted(
        repo=RepoName("code"),
        revision=7,
        author="jim",
        committed=datetime(2012, 4, 19, 9, 0, tzinfo=UTC),
        log=log,
        dirs=tuple(f"{p}/trunk/" for p in projects),
        dir_count=len(projects),
        projects=projects,
    )


def test_a_revision_of_several_projects_goes_to_each_of_the_originals_jobs() -> None:
    frames = legacy_frames(svn())
    assert [as_the_original_reads(f.body)["Project"] for f in frames] == [["web"], ["api"]]
    assert {f.headers["subject"] for f in frames} == {"[code] 7 "}
    assert as_the_original_reads(encode(svn(), legacy=True).body)["Project"] == ["web", "api"]


def test_each_frame_of_a_revision_is_read_back_as_of_its_project_alone() -> None:
    message = svn(("web", "api", "tags"))
    frames = legacy_frames(message)
    found = [decode(frame.headers, frame.body) for frame in frames]
    assert [each.projects for each in found if isinstance(each, RevisionCommitted)] == [("web",), ("api",), ("tags",)]
    ids = [frame.headers["deploykit-id"] for frame in frames]
    assert ids == [f"{message.id}/{number}" for number in (1, 2, 3)]
    assert [frame.headers["deploykit-id"] for frame in legacy_frames(message)] == ids


def test_no_log_message_and_no_directory_can_pass_for_a_key() -> None:
    message = RevisionCommitted(
        repo=RepoName("code"), revision=7, log=HOSTILE, dirs=("repo: evil/", "x\nProject: evil/"), projects=("web",)
    )
    found = as_the_original_reads(encode(message, legacy=True).body)
    assert (found["repo"], found["Project"]) == (["code"], ["web"])


@pytest.mark.parametrize(
    ("message", "verb", "status"),
    [
        (BuildStarted(job="tests", number=7, repo=REPO, ref=REF, commit=NEW), "Begin", "Start job"),
        (
            BuildFinished(job="tests", number=7, repo=REPO, ref=REF, commit=NEW, outcome="success"),
            "Complete",
            "Success",
        ),
        (BuildFinished(job="tests", number=7, repo=REPO, ref=REF, commit=NEW, outcome="unstable"), "Fail", "Cake"),
        (BuildFinished(job="tests", number=7, repo=REPO, ref=REF, commit=NEW, outcome="aborted"), "Fail", "Cake"),
    ],
    ids=["begin", "success", "unstable", "aborted"],
)
def test_builds_are_written_as_the_helper_wrote_them(message: Message, verb: str, status: str) -> None:
    frame = encode(message, legacy=True)
    assert frame.headers["subject"] == f"{verb} job 7 - [tests] shop/topic/x {NEW}"
    assert as_the_original_reads(frame.body)["Repo"] == ["shop"]
    assert as_the_original_reads(frame.body)["Status"] == [status]


@pytest.mark.parametrize(
    "ref",
    [None, "refs/tags/v1", "refs/heads/tags/v1", "refs/heads/refs/tags/v1", "refs/notes/x", "refs/heads/HEAD"],
)
def test_a_build_of_any_ref_is_read_back_as_of_that_ref(ref: str | None) -> None:
    built = RefName(ref) if ref else None
    frame = encode(BuildFinished(job="a]b", number=7, repo=REPO, ref=built, commit=NEW, outcome="success"), legacy=True)
    again = decode(frame.headers, frame.body)
    assert isinstance(again, BuildFinished)
    assert (again.job, again.number, again.ref, again.commit) == ("a]b", 7, ref, NEW)


def test_a_build_of_no_known_repository_names_the_remote_as_the_original_did() -> None:
    frame = encode(BuildFinished(job="tests", number=7, ref=REF, commit=NEW, outcome="success"), legacy=True)
    assert frame.headers["subject"] == f"Complete job 7 - [tests] origin/topic/x {NEW}"
    assert as_the_original_reads(frame.body)["Repo"] == ["origin"]
    again = decode(frame.headers, frame.body)
    assert isinstance(again, BuildFinished)
    assert (again.repo, again.ref, again.commit) == (None, REF, NEW)


def test_a_build_of_nothing_known_has_an_empty_repository_as_the_original_did() -> None:
    frame = encode(BuildFinished(job="tests", number=7, outcome="failure"), legacy=True)
    assert frame.headers["subject"] == "Fail job 7 - [tests]  "
    assert as_the_original_reads(frame.body)["Repo"] == [""]


def test_a_site_is_named_as_the_originals_access_daemon_calls_it() -> None:
    grant = AccessGrantRequested(site=SiteName("example-site"), user="jane", password="x")
    frame = encode_legacy(grant, label="Example site")
    assert frame.headers["subject"] == "Allow access to Example site for jane"
    assert frame.body == b"Site: Example site\nUser: jane\nPassword: x\n"


@pytest.mark.parametrize("label", ["a\nUser: root", " a", "a: b", "a\x00"])
def test_a_label_that_could_be_read_as_more_than_a_name_is_refused(label: str) -> None:
    grant = AccessGrantRequested(site=SiteName("example-site"), user="jane", password="x")
    with pytest.raises(MessageError, match="label"):
        encode_legacy(grant, label=label)


def test_the_access_daemon_gets_the_three_lines_it_wants() -> None:
    grant = AccessGrantRequested(site=SiteName("intranet"), user="jane", password="c4nary: x")
    frame = encode(grant, legacy=True)
    assert frame.body == b"Site: intranet\nUser: jane\nPassword: c4nary: x\n"
    assert "c4nary" not in repr(frame)
    assert decode(frame.headers, frame.body).password == "c4nary: x"  # type: ignore[union-attr]


@pytest.mark.parametrize("password", ["", "a\nSite: other", "a\x00b"])
def test_an_access_grant_without_a_fit_password_is_not_written(password: str) -> None:
    with pytest.raises(MessageError, match="in clear") as caught:
        encode(AccessGrantRequested(site=SiteName("intranet"), user="jane", password=password), legacy=True)
    assert "other" not in str(caught.value)


def test_a_package_is_written_by_its_file_name_and_its_subject_has_no_colon() -> None:
    frame = encode(
        PackagePublished(name="shop", version="1.0", architecture="all", detail="package: x\nok"), legacy=True
    )
    assert frame.body == b"package: shop_1.0_all.deb\npackage - x\nok\n"
    assert frame.headers["subject"] == "Package update [shop_1.0_all.deb]"


@pytest.mark.parametrize("file", [" ", "\x00", "x/", "pool/shop_1.0_all.deb"])
def test_a_package_is_written_so_that_it_can_be_read_whatever_its_file_is_called(file: str) -> None:
    frame = encode(PackagePublished(name="shop", version="1.0", architecture="all", file=file), legacy=True)
    again = decode(frame.headers, frame.body)
    assert isinstance(again, PackagePublished)
    assert (again.name, again.version, again.file) == ("shop", "1.0", "shop_1.0_all.deb")


@pytest.mark.parametrize(
    "message",
    [
        Notice(text="hello\nworld"),
        BuildRequested(job="shop"),
        MirrorUpdated(node=NodeName("n"), repo=REPO, ref=REF, old=OLD, new=NEW, outcome="updated"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_only_people_read_is_a_human_line(message: Message) -> None:
    frame = encode(message, legacy=True)
    assert frame.headers["subject"] == "Talking to eventbot"
    assert frame.body.decode() == message.summary


@pytest.mark.parametrize(
    "message",
    [
        DeployRequested(site=SiteName("s"), ref=REF, commit=NEW, audience=(NodeName("n"),), expires=datetime.now(UTC)),
        AccessRevokeRequested(site=SiteName("s"), user="jane"),
        Unknown(type="x"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_the_original_has_no_word_for_is_refused(message: Message) -> None:
    with pytest.raises(MessageError, match="the original has no message like"):
        encode(message, legacy=True)


@pytest.mark.parametrize(
    "message",
    [push(repo="x\nrepo: y"), push(ref="refs/heads/a\nb"), push(new="HEAD"), svn()],
    ids=["repo", "ref", "new", "good"],
)
def test_names_that_nobody_parsed_do_not_become_lines(message: Message) -> None:
    if isinstance(message, RevisionCommitted):
        encode(message, legacy=True)
        return
    with pytest.raises(MessageError, match="cannot be sent"):
        encode(message, legacy=True)


@pytest.mark.parametrize(
    "message",
    [push(), push(new=ObjectId("0" * 40), commits=(), commit_count=0), svn(), svn(projects=("web",))],
    ids=["push", "deletion", "svn-many", "svn-one"],
)
def test_what_is_written_for_the_original_is_read_back_the_same(message: Message) -> None:
    frame = encode(message, legacy=True)
    again = decode(frame.headers, frame.body)
    own = {"id", "source", "time", "correlation_id"}
    assert {k: v for k, v in vars_of(again).items() if k not in own} == {
        k: v for k, v in vars_of(message).items() if k not in own
    }


def vars_of(message: Message | None) -> dict[str, object]:
    assert message is not None
    return {a.name: getattr(message, a.name) for a in attrs.fields(type(message))}


@pytest.mark.parametrize("text", ["", " ", "\x00", "\n\u2028"])
def test_a_line_of_nothing_is_no_keepalive(text: str) -> None:
    """The original's mirror updater ends on one."""
    frame = encode(Notice(text=text), legacy=True)
    assert isinstance(decode(frame.headers, frame.body), Notice)
