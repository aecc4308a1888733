"""Objects that git-lfs pushed to a real server come with the fetch that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.mirror import Mirror
from deploykit.mirror.model import LfsFetched
from deploykit.settings.mirror import MirrorSettings
from tests.support.lfsorigins import LfsRepo, LfsServer, giftless, in_store, pointer_to, seeded


@pytest.fixture(scope="module")
def server() -> Iterator[LfsServer]:
    with giftless(login="mirror:s3cret p%w@") as running:
        yield running


@pytest.fixture
def repo(tmp_path: Path, server: LfsServer) -> LfsRepo:
    return LfsRepo.make(tmp_path, server)


@pytest.fixture
def mirror(tmp_path: Path, server: LfsServer, repo: LfsRepo) -> Mirror:
    settings = MirrorSettings(lfs=True, lfs_url=server.url, ca_file=server.ca_file, credentials_file=server.credentials)
    return Mirror.open(tmp_path / "mirror.git", str(repo.origin.path), settings)


def test_each_tip_has_its_objects_and_a_later_fetch_brings_what_is_new(mirror: Mirror, repo: LfsRepo) -> None:
    first, second = seeded(3 << 20, 1), seeded(1000, 2)
    repo.commit({"logo.bin": first, "a/b/small.bin": second, "plain.txt": b"text"})
    repo.git("tag", "-a", "-m", "released", "v1")
    repo.commit({"logo.bin": None})
    fetched = mirror.fetch()
    assert (fetched.lfs.objects, fetched.lfs.received) == (2, len(first) + len(second))
    assert (fetched.lfs.missing, fetched.lfs.gaps) == ((), ())
    assert in_store(mirror.path) == {pointer_to(data).oid: len(data) for data in (first, second)}
    assert mirror.lfs is not None
    path = mirror.lfs.path(pointer_to(first))
    assert path is not None
    assert path.read_bytes() == first
    third = seeded(5000, 3)
    repo.commit({"new.bin": third, "a/b/copy.bin": second})
    assert mirror.fetch().lfs.objects == 1
    assert mirror.lfs.path(pointer_to(third)) is not None


def test_a_fetch_that_finds_nothing_new_asks_for_nothing(mirror: Mirror, repo: LfsRepo, server: LfsServer) -> None:
    repo.commit({"logo.bin": seeded(1000, 4)})
    mirror.fetch()
    before = server.log.read_text()
    assert mirror.fetch().lfs == LfsFetched()
    assert server.log.read_text() == before


def test_what_the_server_lost_is_named_and_comes_with_the_next_fetch(
    mirror: Mirror, repo: LfsRepo, server: LfsServer, tmp_path: Path
) -> None:
    data, other = seeded(1000, 5), seeded(2000, 6)
    commit = repo.commit({"logo.bin": data, "other.bin": other})
    aside = (server.objects / pointer_to(data).oid).rename(tmp_path / "aside")
    fetched = mirror.fetch()
    assert mirror.refs == {"refs/heads/main": commit}
    (missing,) = fetched.lfs.missing
    assert (missing.path, missing.oid, missing.size) == ("logo.bin", pointer_to(data).oid, 1000)
    (gap,) = fetched.lfs.gaps
    assert gap.ref == "refs/heads/main"
    assert "does not have it" in gap.reason
    assert in_store(mirror.path) == {pointer_to(other).oid: 2000}
    aside.rename(server.objects / pointer_to(data).oid)
    again = mirror.fetch()
    assert (again.changes, again.lfs.objects, again.lfs.gaps) == ((), 1, ())


def test_a_server_that_has_none_of_them_is_not_taken_for_another_server(
    mirror: Mirror, repo: LfsRepo, server: LfsServer
) -> None:
    data = seeded(1000, 7)
    repo.commit({"logo.bin": data})
    (server.objects / pointer_to(data).oid).unlink()
    (gap,) = mirror.fetch().lfs.gaps
    assert "git lfs push --all" in gap.reason


def test_without_the_login_nothing_comes_and_the_reason_is_said(
    repo: LfsRepo, server: LfsServer, tmp_path: Path
) -> None:
    repo.commit({"logo.bin": seeded(1000, 8)})
    settings = MirrorSettings(lfs=True, lfs_url=server.url, ca_file=server.ca_file)
    with Mirror.open(tmp_path / "other.git", str(repo.origin.path), settings) as mirror:
        (gap,) = mirror.fetch().lfs.gaps
    assert "credentials_file" in gap.reason
    assert in_store(mirror.path) == {}


def test_a_server_whose_certificate_nobody_signed_gets_no_login(
    repo: LfsRepo, server: LfsServer, tmp_path: Path
) -> None:
    repo.commit({"logo.bin": seeded(1000, 9)})
    before = server.log.read_text().count("POST")
    settings = MirrorSettings(lfs=True, lfs_url=server.url, credentials_file=server.credentials)
    with Mirror.open(tmp_path / "other.git", str(repo.origin.path), settings) as mirror:
        (gap,) = mirror.fetch().lfs.gaps
    assert "no trusted certificate" in gap.reason
    assert server.log.read_text().count("POST") == before


def test_the_objects_are_those_that_git_lfs_itself_checks_out(mirror: Mirror, repo: LfsRepo, tmp_path: Path) -> None:
    contents = {f"{at}/{name}.bin": seeded(4000 + at, at) for at in range(3) for name in "ab"}
    repo.commit({**contents, "empty.bin": b"", "past-lfs.txt": b"plain"})
    mirror.fetch()
    repo.git("clone", "-q", str(repo.origin.path), str(tmp_path / "clone"))
    clone = tmp_path / "clone"
    for words in (("lfs", "install", "--local"), *repo.access, ("lfs", "pull")):
        repo.git("-C", str(clone), *words)
    assert mirror.lfs is not None
    for name, content in contents.items():
        path = mirror.lfs.path(pointer_to((clone / name).read_bytes()))
        assert path is not None
        assert path.read_bytes() == content
    assert len(in_store(mirror.path)) == 3, "a and b of a directory are one object"
    assert repo.git("--git-dir", str(mirror.path), "lfs", "fsck", "--objects") == "Git LFS fsck OK"


def test_a_new_branch_is_compared_with_what_is_there(mirror: Mirror, repo: LfsRepo) -> None:
    repo.commit({"logo.bin": seeded(1000, 10), "a/b.bin": seeded(1000, 11)})
    mirror.fetch()
    repo.git("switch", "-q", "-c", "topic/x")
    repo.commit({"a/c.bin": seeded(1000, 12)})
    assert mirror.fetch().lfs.objects == 1
    repo.git("switch", "-q", "--orphan", "alone")
    repo.commit({".gitattributes": b"*.bin filter=lfs -text\n", "other.bin": seeded(1000, 13)})
    fetched = mirror.fetch()
    assert (fetched.lfs.objects, fetched.lfs.gaps) == (1, ())
