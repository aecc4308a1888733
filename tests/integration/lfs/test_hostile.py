"""A server of Git LFS that lies, floods, leads astray or says nothing costs a line for people, and no more."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.git.lfspointer import LfsPointer
from deploykit.mirror import FetchResult, Mirror
from deploykit.mirror.lfs import wanted
from deploykit.mirror.lfs.fetching import LfsFetch
from deploykit.names import RefName
from deploykit.settings import MirrorSettings
from tests.support.lfsorigins import in_store, pointer_to, seeded
from tests.support.lfsstub import ATTRIBUTES, BATCH, CONTENT, LfsStub, commit_pointers, lfs_stub, pointer_file
from tests.support.origins import GitRepo
from tests.support.stubhttp import Fault
from tests.support.wait import wait_until

GOOD, BAD = seeded(3000, 1), seeded(2000, 2)
LOGIN = "mirror:canary-41"


@pytest.fixture
def stub() -> Iterator[LfsStub]:
    with lfs_stub() as made:
        made.hold(GOOD, BAD)
        yield made


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo.make(tmp_path / "origin.git")


def settings(stub: LfsStub, **more: Any) -> MirrorSettings:
    return MirrorSettings(lfs=True, lfs_url=stub.url, allow_http=True, **more)


def fetch(tmp_path: Path, repo: GitRepo, stub: LfsStub, **more: Any) -> FetchResult:
    """Fetch a commit with a good and a bad object; the refs move whatever becomes of them."""
    commit = repo.tip("main") or commit_pointers(repo, {"a-bad.bin": BAD, "b-good.bin": GOOD})
    with Mirror.open(tmp_path / "m.git", str(repo.path), settings(stub, **more)) as mirror:
        result = mirror.fetch()
        assert mirror.refs == {"refs/heads/main": commit}
    return result


def held(tmp_path: Path) -> set[str]:
    """What is in the store. Nothing is left beside it."""
    assert not list((tmp_path / "m.git" / "lfs").glob("incoming/*"))
    return set(in_store(tmp_path / "m.git"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (seeded(2000, 3), "does not hash to the id in the pointer"),
        (BAD[:-1], "sent 1999 of 2000 bytes"),
        (BAD + b"x", "more than the 2000 bytes that the pointer says"),
        (b"", "sent 0 of 2000 bytes"),
    ],
)
def test_what_is_not_the_object_never_gets_in(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, content: bytes, why: str
) -> None:
    stub.sent[pointer_to(BAD).oid] = content
    result = fetch(tmp_path, repo, stub)
    (missing,) = result.lfs.missing
    assert (missing.path, missing.oid, missing.size) == ("a-bad.bin", pointer_to(BAD).oid, 2000)
    assert why in missing.reason
    (gap,) = result.lfs.gaps
    assert gap.ref == "refs/heads/main"
    assert why in gap.reason
    assert held(tmp_path) == {pointer_to(GOOD).oid}
    stub.sent.clear()
    assert fetch(tmp_path, repo, stub).lfs.gaps == ()
    assert held(tmp_path) == {pointer_to(GOOD).oid, pointer_to(BAD).oid}


@pytest.mark.parametrize("where", [BATCH, CONTENT])
def test_a_flood_is_cut_off(tmp_path: Path, repo: GitRepo, stub: LfsStub, where: str) -> None:
    stub.faults = [Fault(kind="huge", path=where)]
    result = fetch(tmp_path, repo, stub)
    assert len(result.lfs.missing) == (2 if where == BATCH else 1)
    assert stub.sent_bytes < 100 << 20
    assert len(held(tmp_path)) == (0 if where == BATCH else 1)


@pytest.mark.parametrize("where", [BATCH, CONTENT])
@pytest.mark.parametrize("kind", ["middle", "close", "garbage"])
def test_what_breaks_off_is_missing_and_the_next_fetch_has_it(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, where: str, kind: Any
) -> None:
    stub.faults = [Fault(kind=kind, path=where)]
    result = fetch(tmp_path, repo, stub)
    if kind == "middle" and where == CONTENT:  # the object came whole: what was to come after it is not of it
        assert result.lfs.missing[0].reason.endswith("broke off")
    assert [each.path for each in result.lfs.missing] == ["a-bad.bin", *(["b-good.bin"] if where == BATCH else [])]
    assert fetch(tmp_path, repo, stub).lfs.missing == ()
    assert len(held(tmp_path)) == 2


@pytest.mark.parametrize("where", [BATCH, CONTENT])
@pytest.mark.parametrize("status", [302, 308])
def test_no_redirect_is_followed(tmp_path: Path, repo: GitRepo, stub: LfsStub, where: str, status: int) -> None:
    with lfs_stub() as other:
        other.hold(GOOD, BAD)
        headers = {
            "Location": f"{other.url}{BATCH}" if where == BATCH else f"{other.base}{CONTENT}{pointer_to(BAD).oid}"
        }
        stub.faults = [Fault(kind="status", path=where, status=status, headers=headers)]
        result = fetch(tmp_path, repo, stub)
        assert other.seen == []
    assert "redirects" in result.lfs.missing[0].reason
    assert pointer_to(BAD).oid not in held(tmp_path)


def test_the_login_goes_to_the_server_in_the_settings_and_to_no_other(
    tmp_path: Path, repo: GitRepo, stub: LfsStub
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"http://{LOGIN}@{stub.base.removeprefix('http://')}\n")
    credentials.chmod(0o600)
    with lfs_stub() as other:
        other.hold(BAD)

        def elsewhere(listed: dict[str, Any]) -> None:
            if listed["oid"] == pointer_to(BAD).oid:
                href = f"{other.base}{CONTENT}{listed['oid']}?signed=1"
                listed["actions"]["download"] = {"href": href, "header": {"X-Signed": "yes"}}

        stub.entry = elsewhere
        assert fetch(tmp_path, repo, stub, credentials_file=credentials).lfs.missing == ()
        (there,) = other.seen
    assert "authorization" not in there.headers
    assert (there.headers["x-signed"], there.query) == ("yes", "signed=1")
    right = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
    assert [seen.headers.get("authorization") for seen in stub.seen] == [right, right]
    assert all("x-signed" not in seen.headers for seen in stub.seen)


@pytest.mark.parametrize("says", [{"authenticated": True}, {"header": {"Authorization": "Bearer of-the-object"}}])
def test_a_login_that_the_server_gave_or_does_not_want_takes_the_place_of_ours(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, says: dict[str, Any]
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"http://{LOGIN}@{stub.base.removeprefix('http://')}\n")
    credentials.chmod(0o600)

    def change(listed: dict[str, Any]) -> None:
        listed["actions"]["download"] |= {"header": says.get("header", {})}
        listed["authenticated"] = says.get("authenticated", False)

    stub.entry = change
    assert fetch(tmp_path, repo, stub, credentials_file=credentials).lfs.missing == ()
    found = {seen.headers.get("authorization") for seen in stub.seen if CONTENT in seen.path}
    assert found == {says["header"]["Authorization"] if "header" in says else None}


def test_a_repository_does_not_say_where_its_objects_come_from(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    with lfs_stub() as other:
        other.hold(GOOD)
        config = f'[lfs]\n\turl = {other.url}\n\tpushurl = {other.url}\n[remote "origin"]\n\tlfsurl = {other.url}\n'
        pointer = pointer_file(pointer_to(GOOD))
        repo.commit({".gitattributes": ATTRIBUTES, ".lfsconfig": config.encode(), "b-good.bin": pointer})
        assert fetch(tmp_path, repo, stub).lfs.objects == 1
        assert other.seen == []


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"", "check credentials_file"),
        (403, b"", "check credentials_file"),
        (404, b"<html>", "set lfs_url"),
        (404, b'{"message": "Cannot find any of the requested objects"}', "git lfs push --all"),
        (413, b"", "of that size"),
        (422, b'{"message": "Cannot validate any of the requested objects"}', "git lfs push --all"),
        (429, b'{"message": "slow down\\u001b[31m"}', "slow down [31m"),
        (500, b"", "HTTP 500"),
        (501, b"", "switched off"),
        (509, b"", "quota"),
    ],
)
def test_a_server_that_refuses_is_asked_once_and_said_in_one_line(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, status: int, body: bytes, says: str
) -> None:
    stub.faults = [Fault(kind="status", path=BATCH, status=status, body=body)]
    result = fetch(tmp_path, repo, stub)
    assert len(stub.seen) == 1
    assert len(result.lfs.missing) == 2
    (reason,) = {missing.reason for missing in result.lfs.missing}
    assert says in reason
    assert reason.isprintable()


def test_a_server_that_echoes_the_login_does_not_get_it_shown(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"http://{LOGIN}@{stub.base.removeprefix('http://')}\n")
    credentials.chmod(0o600)
    coded = base64.b64encode(LOGIN.encode()).decode()
    body = f'{{"message": "who is Basic {coded}, canary-41?"}}'.encode()
    stub.faults = [Fault(kind="status", path=BATCH, status=403, body=body)]
    shown = str(fetch(tmp_path, repo, stub, credentials_file=credentials))
    assert "who is" in shown
    assert "canary-41" not in shown
    assert coded not in shown


def test_of_a_silent_server_no_third_object_is_asked_for(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    many = [seeded(100, at) for at in range(10, 16)]
    stub.hold(*many)
    commit_pointers(repo, {f"{at}.bin": each for at, each in enumerate(many)})
    stub.faults = [Fault(kind="close", path=CONTENT + pointer_to(many[at]).oid, times=9) for at in (0, 2, 3)]
    result = fetch(tmp_path, repo, stub)
    assert sum(CONTENT in path for path in stub.paths()) == 4, "one that is silent for one object may have the next"
    assert result.lfs.objects == 1
    assert {missing.path for missing in result.lfs.missing} == {f"{at}.bin" for at in (0, 2, 3, 4, 5)}
    assert "closed the connection" in result.lfs.missing[-1].reason


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    commit_pointers(repo, {"a-bad.bin": BAD, "b-good.bin": GOOD})
    with Mirror.open(tmp_path / "m.git", str(repo.path)) as mirror:
        mirror.fetch()
        stub.faults = [Fault(kind="never", path=BATCH)]
        impatient = settings(stub, stall_timeout=0.2)  # of the server of objects alone: git may take longer
        result = LfsFetch(mirror.path, mirror.url, impatient, None).run(mirror.refs, ())
    assert len(stub.seen) == 1
    assert {"did not answer" in missing.reason for missing in result.missing} == {True}


def test_a_server_that_trickles_is_given_up_at_the_deadline(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    big = LfsPointer("ab" * 32, 1 << 20)
    commit_pointers(repo, {"big.bin": big})
    stub.objects[big.oid] = b""
    stub.entry = lambda listed: listed.update(size=1 << 20)
    stub.faults = [Fault(kind="trickle", path=CONTENT)]
    result = fetch(tmp_path, repo, stub, lfs_deadline=2.0)
    (missing,) = result.lfs.missing
    assert "took longer than 2 s" in missing.reason
    assert held(tmp_path) == set()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"lfs_max_object_bytes": 1999}, "lfs_max_object_bytes allows 1999"),
        ({"lfs_max_bytes": 1999}, "lfs_max_bytes (1999)"),
    ],
)
def test_what_is_too_much_is_not_asked_for(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, more: dict[str, int], says: str
) -> None:
    small = seeded(10, 4)
    stub.hold(small)
    commit_pointers(repo, {"a-bad.bin": BAD, "small.bin": small})
    result = fetch(tmp_path, repo, stub, **more)
    assert [missing.path for missing in result.lfs.missing] == ["a-bad.bin"]
    assert says in result.lfs.missing[0].reason
    assert held(tmp_path) == {pointer_to(small).oid}
    assert pointer_to(BAD).oid.encode() not in b"".join(seen.body for seen in stub.seen)


def test_what_the_disk_has_no_room_for_is_not_begun(tmp_path: Path, repo: GitRepo, stub: LfsStub) -> None:
    huge = LfsPointer("cd" * 32, 10**17)
    stub.objects[huge.oid] = b""
    stub.entry = lambda listed: listed.update(size=10**17)
    commit_pointers(repo, {"huge.bin": huge})
    result = fetch(tmp_path, repo, stub, lfs_max_bytes=10**18, lfs_max_object_bytes=10**18)
    assert "no room" in result.lfs.missing[0].reason
    assert not any(CONTENT in path for path in stub.paths())


def test_a_process_killed_in_the_middle_of_an_object_leaves_nothing_that_counts(
    tmp_path: Path, repo: GitRepo, stub: LfsStub
) -> None:
    commit_pointers(repo, {"a-bad.bin": BAD, "b-good.bin": GOOD})
    stub.faults = [Fault(kind="trickle", path=CONTENT + pointer_to(BAD).oid)]
    path = tmp_path / "m.git"
    argv = [sys.executable, "-m", "deploykit", "mirror", "sync", str(repo.path), str(path), "--allow-http"]
    process = subprocess.Popen([*argv, "--lfs-url", stub.url], stdout=subprocess.DEVNULL)
    try:
        incoming = path / "lfs" / "incoming" / pointer_to(BAD).oid
        wait_until(lambda: incoming.exists() and incoming.stat().st_size, "the first bytes")
    finally:
        process.kill()
        process.wait()
    assert incoming.stat().st_size < len(BAD)
    assert in_store(path) == {}
    incoming.with_name("0" * 64).write_bytes(b"of an object that nobody wants any more")
    result = fetch(tmp_path, repo, stub)
    assert (result.changes, result.lfs.objects, result.lfs.gaps) == ((), 2, ())
    assert held(tmp_path) == {pointer_to(GOOD).oid, pointer_to(BAD).oid}


def test_a_deep_or_endless_tree_is_given_up_and_says_so(
    tmp_path: Path, repo: GitRepo, stub: LfsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees of trees, each twice in the next: 2^40 directories out of 40 objects; and 100 in each other."""
    tree = repo.tree({".gitattributes": ATTRIBUTES, "x.bin": pointer_file(pointer_to(GOOD))})
    for _ in range(40):
        tree = repo.git("mktree", data=f"040000 tree {tree}\ta\n040000 tree {tree}\tb\n".encode())
    repo.commit(tree=tree, branch="wide")
    deep = repo.tree({"x": b""})
    for _ in range(66):
        deep = repo.git("mktree", data=f"040000 tree {deep}\td\n".encode())
    repo.commit(tree=deep, branch="deep")
    good = commit_pointers(repo, {"b-good.bin": GOOD}, branch="good", parents=())
    monkeypatch.setattr(wanted, "_MAX_ENTRIES", 10**9)  # what a tree may have costs seconds: time ends it, too
    with Mirror.open(tmp_path / "m.git", str(repo.path), settings(stub, lfs_deadline=1.0)) as mirror:
        result = mirror.fetch()
        assert mirror.refs[RefName("refs/heads/good")] == good
    gaps = {gap.ref: gap.reason for gap in result.lfs.gaps}
    assert "larger than any" in gaps[RefName("refs/heads/deep")]
    assert "took longer than 1 s" in gaps[RefName("refs/heads/wide")]
