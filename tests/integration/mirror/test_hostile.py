"""What a repository or a server may throw at a mirror: it stays as it was and usable, and the error names the thing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploykit.errors import MirrorCorrupt, OriginError, PackError, UsageError
from deploykit.mirror import Mirror, RefChange
from deploykit.names import ObjectId, RefName
from deploykit.settings import MirrorSettings
from tests.support import gitserver as gs
from tests.support.gitserver import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TREE, FakeGitServer
from tests.support.origins import GitRepo, run_git

MAIN = "refs/heads/main"

BLOB_DATA = b"hello\n"
BLOB_ID = gs.oid_of(BLOB, BLOB_DATA)
TREE_DATA = gs.tree_of((b"100644", b"file", BLOB_ID))
TREE_ID = gs.oid_of(TREE, TREE_DATA)
COMMIT_DATA = gs.commit_of(TREE_ID)
COMMIT_ID = gs.oid_of(COMMIT, COMMIT_DATA)
SOUND = (gs.entry(COMMIT, COMMIT_DATA), gs.entry(TREE, TREE_DATA), gs.entry(BLOB, BLOB_DATA))


def refuses(tmp_path: Path, pack: bytes, match: str, *, error: type[Exception] = PackError) -> None:
    """The pack is refused in good time and in words, nothing of it stays, and a sound fetch works right after."""
    with FakeGitServer(refs={MAIN: COMMIT_ID.hex()}, pack=pack) as server:
        settings = MirrorSettings(max_object_bytes=8 << 20)
        with Mirror.open(tmp_path / "m.git", server.url, settings) as mirror:
            started = time.monotonic()
            with pytest.raises(error, match=match):
                mirror.fetch(deadline=60)
            assert time.monotonic() - started < 40, "refused at once, not at the deadline"
            assert mirror.refs == {}
            assert list((mirror.path / "quarantine").iterdir()) == []
            assert list((mirror.path / "objects" / "pack").iterdir()) == []
            server.pack = gs.pack(*SOUND)
            assert mirror.fetch().changes
            assert mirror.resolve("main").tree == TREE_ID.hex()


class TestPacksThatDoNotHoldTogether:
    def test_a_missing_blob_is_named(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND[:2]), f"did not send blob {BLOB_ID.hex()}")

    def test_a_missing_tree_is_named(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(SOUND[0], SOUND[2]), f"did not send tree {TREE_ID.hex()}")

    def test_a_missing_parent_is_named(self, tmp_path: Path) -> None:
        child = gs.commit_of(TREE_ID, b"\7" * 20)
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(COMMIT, child)), f"did not send commit {'07' * 20}")

    def test_a_pack_without_what_was_wanted_is_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(SOUND[2]), f"did not send the object {COMMIT_ID.hex()}")

    def test_an_empty_pack_is_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(), "did not send the object")

    def test_a_tree_where_a_blob_should_be_is_refused(self, tmp_path: Path) -> None:
        tree = gs.tree_of((b"40000", b"dir", BLOB_ID))
        commit = gs.commit_of(gs.oid_of(TREE, tree))
        whole = gs.pack(*SOUND, gs.entry(TREE, tree), gs.entry(COMMIT, commit))
        refuses(tmp_path, whole, f"did not send tree {BLOB_ID.hex()}")

    def test_an_object_sent_twice_is_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, SOUND[2]), "twice")

    @pytest.mark.parametrize(
        "tree", [b"garbage", b"100644 a\0short", b"100644 a" + b"\0" * 21 + b"x", b"9 a\0" + b"x" * 20]
    )
    def test_a_malformed_tree_is_named(self, tree: bytes, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(TREE, tree)), f"tree {gs.oid_of(TREE, tree).hex()} is malformed")

    @pytest.mark.parametrize(
        "commit", [b"", b"tree x", b"tree " + b"g" * 40 + b"\n", COMMIT_DATA.replace(b"\n", b"", 1)]
    )
    def test_a_malformed_commit_is_named(self, commit: bytes, tmp_path: Path) -> None:
        oid = gs.oid_of(COMMIT, commit).hex()
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(COMMIT, commit)), f"commit {oid} is malformed")

    def test_a_flipped_bit_is_found(self, tmp_path: Path) -> None:
        damaged = bytearray(gs.pack(*SOUND))
        damaged[-30] ^= 1
        refuses(tmp_path, bytes(damaged), ".")

    def test_a_pack_cut_short_is_found(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND)[:-25], "cut off")

    def test_bytes_after_the_end_are_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND) + b"more", "after the end")

    def test_more_objects_than_came_are_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, count=4), ".")

    def test_no_pack_at_all_is_refused(self, tmp_path: Path) -> None:
        refuses(tmp_path, b"<html>hello</html>", "not a pack")


class TestBombs:
    """Small packs that unfold without end: refused before the memory is taken."""

    def test_a_delta_that_claims_a_terabyte(self, tmp_path: Path) -> None:
        delta = gs.varint(len(BLOB_DATA)) + gs.varint(1 << 40) + gs.copy_op(0, 5)
        whole = gs.pack(*SOUND, gs.entry(REF_DELTA, delta, base=BLOB_ID))
        refuses(tmp_path, whole, f"makes an object of {1 << 40} bytes")

    def test_deltas_that_double_fifty_times(self, tmp_path: Path) -> None:
        size = len(BLOB_DATA)
        entries, oid_data = list(SOUND), BLOB_DATA
        at = [12]
        for item in entries:
            at.append(at[-1] + len(item))
        previous = at[2]
        for _ in range(50):
            delta = gs.varint(size) + gs.varint(2 * size)
            full, rest = divmod(size, (1 << 24) - 1)
            copies = b"".join(gs.copy_op(n * ((1 << 24) - 1), (1 << 24) - 1) for n in range(full))
            copies += gs.copy_op(full * ((1 << 24) - 1), rest)
            here = at[-1]
            entries.append(gs.entry(OFS_DELTA, delta + copies * 2, base=here - previous))
            at.append(here + len(entries[-1]))
            previous, size = here, 2 * size
            if len(delta) > 1 << 20:
                break
            if size > 1 << 30:
                break
        assert oid_data
        refuses(tmp_path, gs.pack(*entries), "makes an object of")

    def test_a_delta_of_many_copies(self, tmp_path: Path) -> None:
        delta = gs.varint(len(BLOB_DATA)) + gs.varint(9 << 20) + gs.copy_op(0, 6) * 100
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(REF_DELTA, delta, base=BLOB_ID)), "makes an object of")

    def test_zlib_that_holds_more_than_the_head_says(self, tmp_path: Path) -> None:
        bomb = gs.entry(BLOB, b"\0" * 50_000_000, size=10)
        refuses(tmp_path, gs.pack(*SOUND, bomb), "has not the size|longer than it says")

    def test_zlib_that_holds_more_than_a_large_head_says(self, tmp_path: Path) -> None:
        bomb = gs.entry(BLOB, b"\0" * 50_000_000, size=2_000_000)
        refuses(tmp_path, gs.pack(*SOUND, bomb), "longer than it says")

    def test_a_tree_of_impossible_size(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(TREE, TREE_DATA, size=1 << 40)), "too large")

    def test_an_object_of_impossible_size(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, b"\xb0" + b"\xff" * 12 + b"\1"), "impossible size")

    def test_a_delta_on_itself(self, tmp_path: Path) -> None:
        one, two = b"\1" * 20, b"\2" * 20
        circle = [gs.entry(REF_DELTA, b"\6\6\x90\6", base=one), gs.entry(REF_DELTA, b"\6\6\x90\6", base=two)]
        refuses(tmp_path, gs.pack(*SOUND, *circle), "base .* of a delta is not in the pack")

    def test_a_delta_whose_base_is_no_object(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(OFS_DELTA, b"\6\6\x90\6", base=3)), "where no object starts")

    def test_a_delta_whose_base_is_before_the_pack(self, tmp_path: Path) -> None:
        refuses(tmp_path, gs.pack(*SOUND, gs.entry(OFS_DELTA, b"\6\6\x90\6", base=1 << 30)), "outside the pack")

    def test_a_chain_of_five_thousand_deltas_is_read_in_flat_memory(self, tmp_path: Path) -> None:
        entries, at, data = list(SOUND), 12, BLOB_DATA
        for item in SOUND[:2]:
            at += len(item)
        previous, here = at, at + len(SOUND[2])
        for n in range(5_000):
            extra = b"%06d\n" % n
            delta = gs.varint(len(data)) + gs.varint(len(data) + 7) + gs.copy_op(0, len(data)) + b"\7" + extra
            entries.append(gs.entry(OFS_DELTA, delta, base=here - previous))
            data += extra
            previous, here = here, here + len(entries[-1])
        with FakeGitServer(refs={MAIN: COMMIT_ID.hex()}, pack=gs.pack(*entries)) as server:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            mirror = Mirror.open(tmp_path / "m.git", server.url)
            assert mirror.fetch(deadline=60).objects == 5_003
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000
        assert run_git(mirror.path, "cat-file", "-s", gs.oid_of(BLOB, data).hex()) == str(len(data))


class TestRefLists:
    def fetch(self, tmp_path: Path, refs: dict[str, str | bytes], raw: bytes = b"") -> Mirror:
        with FakeGitServer(refs=refs, pack=gs.pack(*SOUND), raw=raw) as server:
            mirror = Mirror.open(tmp_path / "m.git", server.url)
            self.result = mirror.fetch(deadline=60)
            return mirror

    @pytest.mark.parametrize(
        "name", ["-x", "a;$(id)", "`id`", "--upload-pack=x", "a\u202eb", "$IFS", "a'b\"c", "con", "a%2Fb"]
    )
    def test_names_git_allows_are_kept_as_they_are_and_touch_nothing(self, name: str, tmp_path: Path) -> None:
        repo = GitRepo.make(tmp_path / "origin.git")
        commit = repo.commit()
        ref = f"refs/heads/{name}"
        repo.git("update-ref", ref, commit)
        mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
        mirror.fetch()
        assert mirror.refs == {MAIN: commit, ref: commit}
        assert mirror.resolve(ref).commit == commit
        repo.git("update-ref", "-d", ref)
        mirror.fetch(RefChange(RefName(ref), ObjectId(commit), ObjectId("0" * 40)))
        assert mirror.refs == {MAIN: commit}
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.git", "origin.git"]

    @pytest.mark.parametrize(
        "name",
        [
            "a..b",
            "../../x",
            "a/../../x",
            "a.lock",
            "a\x07b",
            "a\\b",
            "/a",
            "a//b",
            "a.",
            "@{x",
            "x" * 2000,
            "a\udce9",
        ],
    )
    def test_names_git_forbids_are_refused_and_the_rest_is_mirrored(self, name: str, tmp_path: Path) -> None:
        good = COMMIT_ID.hex()
        mirror = self.fetch(tmp_path, {MAIN: good, f"refs/heads/{name}": good})
        assert mirror.refs == {MAIN: good}
        assert len(self.result.refused) <= 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.git"]
        assert run_git(mirror.path, "for-each-ref", "--format=%(refname)") == MAIN

    def test_two_refs_that_cannot_stand_together_do_not_both_come(self, tmp_path: Path) -> None:
        good = COMMIT_ID.hex()
        mirror = self.fetch(tmp_path, {MAIN: good, "refs/heads/a": good, "refs/heads/a/b": good})
        assert set(mirror.refs) == {MAIN, "refs/heads/a"}
        assert [r.ref for r in self.result.refused] == ["refs/heads/a/b"]

    @pytest.mark.parametrize("oid", ["0" * 40, "xyz", "A" * 40, "a" * 41, ""])
    def test_ids_that_are_none_are_refused(self, oid: str, tmp_path: Path) -> None:
        mirror = self.fetch(tmp_path, {MAIN: COMMIT_ID.hex(), "refs/heads/bad": oid})
        assert set(mirror.refs) == {MAIN}

    def test_a_branch_that_is_no_commit_is_refused(self, tmp_path: Path) -> None:
        mirror = self.fetch(
            tmp_path, {MAIN: COMMIT_ID.hex(), "refs/heads/bad": BLOB_ID.hex(), "refs/tags/b": BLOB_ID.hex()}
        )
        assert set(mirror.refs) == {MAIN, "refs/tags/b"}
        assert "not a commit" in self.result.refused[0].reason

    @pytest.mark.parametrize(
        "raw", [b"zzzz", b"0003", b"fff1" + b"x" * 70000, b"0009hello0000", b"0004", b"+00abcdefg"]
    )
    def test_what_is_not_git_is_one_clear_line(self, raw: bytes, tmp_path: Path) -> None:
        with pytest.raises(OriginError) as caught:
            self.fetch(tmp_path, {MAIN: COMMIT_ID.hex()}, raw + b"0" * 10)
        assert "\n" not in str(caught.value)
        assert str(caught.value).isprintable()

    def test_words_of_the_server_are_made_safe_for_a_log(self, tmp_path: Path) -> None:
        with pytest.raises(OriginError) as caught:
            self.fetch(tmp_path, {MAIN: COMMIT_ID.hex()}, gs.packet(b"ERR \x1b[2Jgone\nfake line\x00" + b"x" * 5000))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% pwned", "ssh://-oProxyCommand=touch pwned/x", "-oProxyCommand=x:y", "ssh://host;id/x",
        "http://example.net/x.git", "ftp://example.net/x", "file://host/x", "https://user:canary@example.net/x",
        "ssh://a b/x", "git://host\n/x", "https:///x", "", "https://example.net/x#y", "fd::17", "ssh://-user@host/x",
    ],
)  # fmt: skip
def test_addresses_that_could_run_or_leak_something_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Mirror.open(tmp_path / "m.git", url)
    assert "canary" not in str(caught.value)
    assert not (tmp_path / "m.git").exists()
    assert not list(tmp_path.rglob("pwned"))


def test_an_origin_that_lost_an_object_is_refused_and_the_mirror_goes_on(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    first = repo.commit({"a": b"1", "b": os.urandom(100)})
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    mirror.fetch()
    second = repo.commit({"a": b"2", "b": os.urandom(100)})
    lost = repo.git("rev-parse", f"{second}:b")
    loose = repo.path / "objects" / lost[:2] / lost[2:]
    kept = loose.read_bytes()
    loose.chmod(0o644)
    loose.unlink()
    with pytest.raises(OriginError):
        mirror.fetch()
    assert mirror.refs == {MAIN: first}
    loose.write_bytes(kept)
    mirror.fetch()
    assert mirror.refs == {MAIN: second}


def test_an_origin_that_lost_most_of_its_refs_is_not_followed_unless_told(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    commit = repo.commit()
    for n in range(9):
        repo.git("branch", f"b{n}", commit)
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    mirror.fetch()
    for n in range(9):
        repo.git("update-ref", "-d", f"refs/heads/b{n}")
    second = repo.commit()
    result = mirror.fetch()
    assert [c.new for c in result.changes] == [second]
    assert len(result.refused) == 9
    assert "lost 9 of 10 refs" in result.refused[0].reason
    assert len(mirror.refs) == 10
    assert len(mirror.fetch(allow_mass_deletion=True).changes) == 9
    assert set(mirror.refs) == {MAIN}


def test_a_shallow_origin_is_refused_by_name(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    repo.commit()
    repo.commit()
    run_git(tmp_path, "clone", "-q", "--bare", "--depth=1", f"file://{repo.path}", "shallow.git")
    with pytest.raises(OriginError, match="shallow clone"):
        Mirror.open(tmp_path / "m.git", str(tmp_path / "shallow.git")).fetch()


def test_a_damaged_mirror_says_so_and_names_the_object(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    commit = repo.commit({"a": os.urandom(5000)})
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    mirror.fetch()
    (pack,) = (mirror.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[12:200] = b"\xff" * 188
    pack.write_bytes(data)
    with pytest.raises(MirrorCorrupt, match=commit):
        mirror.resolve("main")


def test_the_library_is_silent_and_keeps_secrets(tmp_path: Path) -> None:
    code = (
        "import sys; from deploykit.mirror import Mirror\n"
        "try: Mirror.open(sys.argv[1], sys.argv[2]).fetch()\nexcept Exception as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.git"), "git://127.0.0.1:1/x"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "cannot connect to 127.0.0.1 port 1" in done.stdout
