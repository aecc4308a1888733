"""Our own look into packs finds what git put there, and nothing else."""

from __future__ import annotations

import bisect
import hashlib
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.git.packformat import base_distance, delta_result_size, object_head
from deploykit.git.packindex import IndexReader
from deploykit.git.packreader import SMALL, PackFile
from deploykit.git.repository import Repository
from tests.support.gitrepo import GitRepo


def _index(names: list[bytes], offsets: list[int], width: int = 20) -> bytes:
    """An index of version 2 with these objects."""
    rows = sorted(zip(names, offsets, strict=True))
    first = [name[0] for name, _ in rows]
    fan = b"".join(struct.pack(">L", bisect.bisect_right(first, n)) for n in range(256))
    small, large = b"", b""
    for _, offset in rows:
        if offset < 1 << 31:
            small += struct.pack(">L", offset)
        else:
            small += struct.pack(">L", 1 << 31 | len(large) // 8)
            large += struct.pack(">Q", offset)
    body = b"\xfftOc" + struct.pack(">L", 2) + fan + b"".join(name for name, _ in rows)
    body += b"\0\0\0\0" * len(rows) + small + large + bytes(width)
    return body + (hashlib.sha1 if width == 20 else hashlib.sha256)(body).digest()


@pytest.mark.parametrize("width", [20, 32])
@pytest.mark.parametrize("count", [0, 1, 2, 300, 60_000])
def test_every_name_is_found_where_it_lies_and_no_other(tmp_path: Path, width: int, count: int) -> None:
    rng = random.Random(count)
    names = list({rng.randbytes(width) for _ in range(count)})
    offsets = [rng.randrange(1 << 31) for _ in names]
    path = tmp_path / "pack-x.idx"
    path.write_bytes(_index(names, offsets, width))
    index = IndexReader(path, width)
    for name, offset in rng.sample(list(zip(names, offsets, strict=True)), min(2000, len(names))):
        assert index.object_offset(name) == offset
        near = bytes([*name[:-1], name[-1] ^ 1])
        with pytest.raises(KeyError):
            index.object_offset(near)
    for _ in range(200):
        with pytest.raises(KeyError):
            index.object_offset(rng.randbytes(width))
    index.close()


def test_a_name_that_stands_across_two_others_is_not_found(tmp_path: Path) -> None:
    """The last bytes of one name and the first of the next look like a third; and the third may be there as well."""
    one, two = b"\x07" * 19 + b"\x08", b"\x07" * 18 + b"\x08\x09"
    first, second = sorted([one, two])
    across = first[10:] + second[:10]
    path = tmp_path / "pack-x.idx"
    path.write_bytes(_index([one, two], [1, 2]))
    assert across[0] == 7
    with pytest.raises(KeyError):
        IndexReader(path, 20).object_offset(across)
    path.write_bytes(_index([one, two, across], [1, 2, 3]))
    assert [IndexReader(path, 20).object_offset(n) for n in (one, two, across)] == [1, 2, 3]


def test_offsets_beyond_two_gigabytes(tmp_path: Path) -> None:
    names = [bytes([n]) * 20 for n in range(5)]
    offsets = [12, (1 << 31) - 1, 1 << 31, (1 << 33) + 7, 99]
    path = tmp_path / "pack-x.idx"
    path.write_bytes(_index(names, offsets))
    index = IndexReader(path, 20)
    assert [index.object_offset(n) for n in names] == offsets


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:500],
        lambda raw: raw[:-41],
        lambda raw: b"\xfftOc\0\0\0\3" + raw[8:],
        lambda raw: raw[1032:],
        lambda raw: raw[:8] + b"\xff\0\0\0" + raw[12:],
        lambda _: b"x",
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "pack-x.idx"
    raw = _index([bytes([n]) * 20 for n in range(5)], [12, 13, 14, 15, 16])
    path.write_bytes(damage(raw))  # type: ignore[operator]
    with pytest.raises(ValueError, match="index"):
        IndexReader(path, 20)


@pytest.mark.parametrize("version", [1, 2])
def test_packs_with_an_index_of_any_version_are_read(tmp_path: Path, version: int) -> None:
    repo = GitRepo(tmp_path / "repo")
    wanted = {}
    for n in range(400):
        content = b"line\n" * 200 + b"%d" % n
        wanted[repo.blob(content)] = content
    repo.git("config", "pack.indexVersion", str(version))
    repo.commit({f"f{n}": content for n, content in enumerate(wanted.values())})
    repo.pack()
    (idx,) = (repo.path / "objects" / "pack").glob("*.idx")
    assert (idx.read_bytes()[:4] == b"\xfftOc") == (version == 2)
    said = subprocess.run(["git", "show-index"], input=idx.read_bytes(), capture_output=True, check=True).stdout
    with Repository(repo.path) as source, ObjectReader(source.store, max_bytes=1 << 20) as reader:
        for line in said.decode().splitlines():
            offset, oid = line.split()[:2]
            found = reader._find(bytes.fromhex(oid))
            assert found is not None
            assert found[1] == int(offset)
        for oid, content in wanted.items():
            assert reader.read(oid.encode(), BLOB) == content
            assert reader.blob(oid.encode()) == (content, bytes.fromhex(oid))


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 300_000])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("claim", [-1, 0, 1])
def test_a_stream_is_exactly_as_long_as_its_header_says_or_damaged(
    tmp_path: Path, size: int, level: int, claim: int
) -> None:
    content = random.Random(size).randbytes(size)
    path = tmp_path / "x"
    path.write_bytes(zlib.compress(content, level) + b"what follows" * 100)
    pack = PackFile.__new__(PackFile)
    raw = path.read_bytes()
    pack.data, pack.view = raw, memoryview(raw)  # type: ignore[assignment]
    if claim == 0:
        assert pack.inflate(0, size) == content
    elif size + claim >= 0:
        with pytest.raises(zlib.error):
            pack.inflate(0, size + claim)


def test_a_small_stream_in_many_blocks_is_read_the_long_way(tmp_path: Path) -> None:
    """Longer than what it holds: no packer writes so, but it is no damage."""
    squeeze = zlib.compressobj()
    raw = b"".join(squeeze.compress(b"x") + squeeze.flush(zlib.Z_FULL_FLUSH) for _ in range(1000)) + squeeze.flush()
    assert len(raw) > 2000
    pack = PackFile.__new__(PackFile)
    pack.data, pack.view = raw, memoryview(raw)  # type: ignore[assignment]
    assert pack.inflate(0, 1000) == b"x" * 1000


@pytest.mark.parametrize("number", [b"\xb0" + b"\x80" * 50, b"\xb0\x80"])
def test_a_size_without_an_end_is_damage(number: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        object_head(number, 0)


@pytest.mark.parametrize("number", [b"\xff" * 50, b"\xff\xff"])
def test_a_distance_without_an_end_is_damage(number: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        base_distance(number, 0)


def test_a_delta_that_is_too_short_to_say_what_it_makes_is_damaged() -> None:
    assert delta_result_size(b"\x05\x8a\x01rest") == 138
    with pytest.raises(IndexError):
        delta_result_size(b"\x85")
