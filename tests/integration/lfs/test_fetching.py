"""Objects that git-lfs pushed to a real server come with the fetch that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.mirror import Mirror
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
    assert mirror.fetch().lfs == attrs.evolve(mirror.fetch().lfs, objects=0, received=0)
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
