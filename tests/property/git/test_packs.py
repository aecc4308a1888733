"""Any pack git makes is read as git reads it; any bytes at all are read or refused, and never a crash."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import PackError
from deploykit.git.incoming import IncomingPack
from deploykit.git.objectformat import SHA1, SHA256, HashKind
from deploykit.git.packindex import index_v2
from deploykit.git.packscanner import PackScanner, ScanLimits
from tests.support.origins import GitRepo, git_env, run_git

SMALL = ScanLimits(object_bytes=1 << 22, meta_bytes=1 << 20, cache_bytes=1 << 16)
#: Cache sizes that resolve deltas on the spot, partly, and not at all.
CACHES = st.sampled_from([0, 300, 5_000, 1 << 20])

_blobs = st.one_of(
    st.binary(max_size=60),
    st.integers(1, 300).map(lambda n: b"".join(b"a line of text number %d\n" % i for i in range(n))),
    st.integers(1, 300).map(lambda n: b"head\n" + b"".join(b"a line of text number %d\n" % i for i in range(n))),
    st.binary(min_size=1, max_size=3).map(lambda b: b * 500_000),
)


def scan(pack: bytes, kind: HashKind = SHA1, *, cuts: Iterable[int] = (), limits: ScanLimits = SMALL) -> PackScanner:
    """Feed a pack in pieces, as a connection would."""
    with tempfile.TemporaryFile() as file:
        file.write(pack)
        file.flush()
        scanner = PackScanner(kind, os.dup(file.fileno()), limits=limits)
        try:
            at = 0
            for cut in [*sorted(c % (len(pack) + 1) for c in cuts), len(pack)]:
                scanner.feed(pack[at:cut])
                at = cut
            scanner.finish()
        finally:
            os.close(scanner._fd)
        return scanner


def our_index(scanner: PackScanner, kind: HashKind = SHA1) -> bytes:
    body = b"".join(index_v2(scanner.ids, scanner.crcs, scanner.offsets, scanner.checksum))
    return body + kind.new(body).digest()


def git_index(pack: bytes, *, object_format: str = "sha1", strict: bool = False) -> bytes | None:
    """What `git index-pack` makes of it; None when it refuses."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pack"
        path.write_bytes(pack)
        argv = ["git", "index-pack", f"--object-format={object_format}", *(["--strict"] if strict else []), str(path)]
        done = subprocess.run(argv, capture_output=True, env=git_env(), cwd=directory, timeout=60)
        return path.with_suffix(".idx").read_bytes() if done.returncode == 0 else None


def pack_of(blobs: list[bytes], object_format: str, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        repo = GitRepo.make(Path(directory) / "r.git", object_format=object_format)
        for n, blob in enumerate(blobs):
            repo.commit({f"file{n % 3}": blob, "dir/x": b"%d" % n})
        repo.git("tag", "-a", "-m", "t", "v1", "main")
        done = subprocess.run(
            ["git", "-C", str(repo.path), "pack-objects", "--stdout", "--all", "--revs", "-q", *options],
            input=b"", capture_output=True, env=git_env(), timeout=60, check=True,
        )  # fmt: skip
        return done.stdout


@pytest.mark.timeout(900)  # git processes for each example
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    blobs=st.lists(_blobs, min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 1 << 24), max_size=12),
    offsets=st.booleans(),
    cache=CACHES,
    object_format=st.sampled_from(["sha1", "sha256"]),
)
def test_a_pack_is_indexed_as_git_indexes_it(
    blobs: list[bytes], cuts: list[int], offsets: bool, cache: int, object_format: str
) -> None:
    pack = pack_of(blobs, object_format, *(["--delta-base-offset"] if offsets else []))
    kind = SHA1 if object_format == "sha1" else SHA256
    scanner = scan(pack, kind, cuts=cuts, limits=ScanLimits(cache_bytes=cache))
    assert our_index(scanner, kind) == git_index(pack, object_format=object_format)
    assert not any(scanner.missing.values())


def test_a_pack_is_indexed_the_same_byte_by_byte() -> None:
    pack = pack_of([b"x\n" * 100, b"x\n" * 100 + b"y\n", b"z" * 2_000_000], "sha1", "--delta-base-offset")
    assert our_index(scan(pack, cuts=range(len(pack)))) == git_index(pack)


def reseal(pack: bytes) -> bytes:
    """Give a changed pack a right checksum, so that more than the checksum is tried."""
    return pack[:-20] + hashlib.sha1(pack[:-20]).digest()


_sample = pack_of(
    [b"".join(b"line %d\n" % i for i in range(n)) for n in (50, 60, 61, 90)] + [b"q" * 1_200_000],
    "sha1",
    "--delta-base-offset",
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_pack_is_never_taken_where_git_refuses_it(data: st.DataObject) -> None:
    changed = bytearray(_sample)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 21))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(changed) - 21))
    pack = reseal(bytes(changed if cut is None else changed[:cut] + changed[-20:]))
    try:
        scanner = scan(pack, limits=ScanLimits(cache_bytes=data.draw(CACHES)))
    except PackError:
        return
    theirs = git_index(pack)
    assert theirs is not None
    try:
        assert our_index(scanner) == theirs
    except PackError:  # an object twice in one pack: git puts up with it, we do not
        assert len(set(scanner.ids)) < len(scanner.ids)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200), count=st.integers(0, 5))
def test_any_bytes_are_refused_or_read(body: bytes, count: int) -> None:
    pack = reseal(b"PACK" + (2).to_bytes(4, "big") + count.to_bytes(4, "big") + body + bytes(20))
    try:
        scan(pack)
    except PackError:
        return
    assert git_index(pack) is not None or count == 0


def test_a_checksum_that_is_wrong_is_refused() -> None:
    changed = bytearray(_sample)
    changed[-1] ^= 1
    with pytest.raises(PackError, match="checksum"):
        scan(bytes(changed))


def entry(kind: int, size: int, body: bytes, base: bytes = b"") -> bytes:
    head = bytearray()
    byte, rest = kind << 4 | size & 15, size >> 4
    while rest:
        head.append(byte | 128)
        byte, rest = rest & 127, rest >> 7
    head.append(byte)
    return bytes(head) + base + zlib.compress(body)


def sealed(*entries: bytes) -> bytes:
    body = b"PACK\0\0\0\2" + len(entries).to_bytes(4, "big") + b"".join(entries)
    return body + hashlib.sha1(body).digest()


@pytest.mark.parametrize(
    ("head", "says"),
    [(b"\xb0" + b"\x80" * 100_000, "impossible size"), (b"\x60" + b"\xff" * 100_000, "base outside the pack")],
)
def test_a_number_without_an_end_is_refused_at_once(head: bytes, says: str) -> None:
    """It is neither kept until more bytes come nor read again with each of them."""
    with tempfile.TemporaryFile() as file:
        scanner = PackScanner(SHA1, file.fileno(), limits=SMALL)
        with pytest.raises(PackError, match=says):
            scanner.feed(b"PACK\0\0\0\2\0\0\0\1" + head)


@pytest.mark.parametrize("delta", [b"", b"\x85", b"\x05\x8a"])
def test_a_delta_without_its_sizes_is_refused(delta: bytes) -> None:
    pack = sealed(entry(3, 5, b"12345"), entry(6, len(delta), delta, bytes([14])))
    with pytest.raises(PackError, match="cut off"):
        scan(pack)


def test_offsets_above_two_gigabytes_go_to_the_large_table() -> None:
    ids = [bytes([n]) * 20 for n in range(4)]
    at = array("Q", [12, 1 << 33, (1 << 31) - 1, 1 << 31])
    body = b"".join(index_v2(ids, array("I", [0] * 4), at, b"c" * 20))
    small = array("I", body[8 + 1024 + 80 + 16 :][:16])
    large = array("Q", body[8 + 1024 + 80 + 32 :][:16])
    small.byteswap()
    large.byteswap()
    assert list(small) == [12, 1 << 31, (1 << 31) - 1, 1 << 31 | 1]
    assert list(large) == [1 << 33, 1 << 31]


def test_a_thin_pack_is_completed_so_that_git_can_read_it(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "r.git")
    text = b"".join(b"line %d of a long file\n" % n for n in range(400))
    first = repo.commit({"a": text})
    second = repo.commit({"a": text + b"one more\n"})
    thin = subprocess.run(
        ["git", "-C", str(repo.path), "pack-objects", "--stdout", "--revs", "--thin", "-q"],
        input=f"{second}\n^{first}\n".encode(), capture_output=True, env=git_env(), check=True,
    ).stdout  # fmt: skip
    half = GitRepo.make(tmp_path / "half.git")
    run_git(half.path, "fetch", "-q", str(repo.path), f"{first}:refs/heads/main")
    quarantine = tmp_path / "q"
    quarantine.mkdir()

    def find(oid: bytes) -> tuple[int, bytes] | None:
        kind = half.git("cat-file", "-t", oid.hex(), check=False)
        if not kind:
            return None
        data = subprocess.run(
            ["git", "-C", str(half.path), "cat-file", kind, oid.hex()], capture_output=True, env=git_env(), check=True
        )
        return {"commit": 1, "tree": 2, "blob": 3, "tag": 4}[kind], data.stdout

    with IncomingPack(
        half.path / "objects",
        quarantine,
        SHA1,
        find=find,
        holds=lambda o: find(o) is not None,
        limits=SMALL,
        max_bytes=1 << 20,
    ) as incoming:
        incoming.feed(thin)
        taken = incoming.finish([bytes.fromhex(second)])
        assert incoming.scanner.external_bases
    assert taken.objects == 3
    assert list(quarantine.iterdir()) == []
    half.git("update-ref", "refs/heads/main", second)
    assert half.git("fsck", "--strict") == ""
    assert "one more" in half.git("show", "main:a")
