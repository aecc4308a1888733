"""What a mirror's policies let through, on real repositories and with real signatures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs
import pytest

from deploykit.mirror import FetchResult, Mirror
from deploykit.settings import MirrorSettings
from tests.support.needs import needs
from tests.support.origins import GitRepo

MAIN = "refs/heads/main"


def mirror_of(repo: GitRepo, home: Path, **settings: object) -> Mirror:
    return Mirror.open(home / "m.git", str(repo.path), MirrorSettings(**settings))  # type: ignore[arg-type]


def why(result: FetchResult) -> str:
    assert len(result.refused) == 1
    assert result.changes == ()
    return result.refused[0].reason


class TestHistory:
    @pytest.fixture
    def repo(self, tmp_path: Path) -> GitRepo:
        repo = GitRepo.make(tmp_path / "o.git")
        for _ in range(3):
            repo.commit()
        return repo

    def test_rewritten_history_is_followed_unless_refused(self, repo: GitRepo, tmp_path: Path) -> None:
        mirror = mirror_of(repo, tmp_path)
        mirror.fetch()
        forced = repo.commit(parents=(repo.tip("main~2"),))
        mirror.fetch()
        assert mirror.refs[MAIN] == forced  # type: ignore[index]
        strict = mirror_of(repo, tmp_path, non_fast_forward="refuse")
        repo.commit(parents=(repo.tip("main~1"),))
        assert "rewritten" in why(strict.fetch())
        assert strict.refs[MAIN] == forced  # type: ignore[index]

    def test_a_merge_and_a_plain_push_are_forward(self, repo: GitRepo, tmp_path: Path) -> None:
        mirror = mirror_of(repo, tmp_path, non_fast_forward="refuse", never_older=True)
        mirror.fetch()
        side = repo.commit(branch=None, parents=(repo.tip("main~2"),))
        repo.commit(parents=(repo.tip("main"), side))
        assert mirror.fetch().refused == ()
        repo.clock -= 100_000  # a push from a machine whose clock is behind
        repo.commit()
        assert mirror.fetch().refused == ()

    def test_a_tag_that_moves_is_refused_where_history_must_not_change(self, repo: GitRepo, tmp_path: Path) -> None:
        repo.git("tag", "v1", "main~1")
        mirror = mirror_of(repo, tmp_path, non_fast_forward="refuse")
        mirror.fetch()
        repo.git("tag", "-f", "v1", "main")
        assert "a tag moved" in why(mirror.fetch())

    def test_going_back_is_refused_with_never_older(self, repo: GitRepo, tmp_path: Path) -> None:
        mirror = mirror_of(repo, tmp_path, never_older=True)
        mirror.fetch()
        tip = repo.tip("main")
        repo.git("update-ref", MAIN, "main~1")
        assert "older" in why(mirror.fetch())
        repo.git("update-ref", MAIN, tip)
        amended = repo.commit(parents=(repo.tip("main~1"),))
        mirror.fetch()
        assert mirror.refs[MAIN] == amended  # type: ignore[index]

    def test_only_the_refs_asked_for_are_mirrored(self, repo: GitRepo, tmp_path: Path) -> None:
        repo.git("branch", "wip/x", "main")
        repo.git("tag", "v1", "main")
        mirror = mirror_of(repo, tmp_path, refs=("refs/heads/main", "refs/tags/v*"))
        mirror.fetch()
        assert set(mirror.refs) == {MAIN, "refs/tags/v1"}


@attrs.define
class Signing:
    """Keys, and a repository to sign in."""

    home: Path
    repo: GitRepo

    def key(self, name: str, kind: str = "ed25519") -> Path:
        path = self.home / name
        if not path.exists():
            bits = ["-b", "2048"] if kind == "rsa" else []
            keygen = str(needs("ssh-keygen", package="openssh-client"))
            subprocess.run([keygen, "-q", "-t", kind, *bits, "-N", "", "-C", name, "-f", str(path)], check=True)
        return path

    def allow(self, *names: str, options: str = 'namespaces="git"') -> Path:
        lines = []
        for name in names:
            kind, blob, _ = self.key(name).with_suffix(".pub").read_text().split(maxsplit=2)
            lines.append(f"{name}@example.net {options} {kind} {blob}\n")
        file = self.home / "allowed_signers"
        file.write_text("".join(lines))
        return file

    def config(self, name: str) -> list[str]:
        return ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.key(name)}"]

    def tag(self, tag: str, by: str, target: str = "main") -> None:
        self.repo.git(*self.config(by), "tag", "-f", "-s", "-m", "release", tag, target)

    def commit(self, by: str) -> str:
        tip = self.repo.tip("main")
        self.repo.clock += 60
        tree = self.repo.git("rev-parse", "main^{tree}")
        commit = self.repo.git(*self.config(by), "commit-tree", "-S", tree, "-p", tip, "-m", "signed")
        self.repo.git("update-ref", MAIN, commit)
        return commit


class TestSignatures:
    @pytest.fixture(params=["sha1", "sha256"])
    def signing(self, request: pytest.FixtureRequest, tmp_path: Path) -> Signing:
        repo = GitRepo.make(tmp_path / "o.git", object_format=request.param)
        repo.commit()
        return Signing(tmp_path, repo)

    def test_a_signed_tag_is_let_in_and_others_are_not(self, signing: Signing, tmp_path: Path) -> None:
        repo = signing.repo
        file = signing.allow("good")
        mirror = mirror_of(repo, tmp_path, signed=("refs/tags/*",), allowed_signers=file)
        mirror.fetch()
        repo.git("tag", "light", "main")
        repo.git("tag", "-a", "-m", "plain", "unsigned", "main")
        signing.tag("stranger", "bad")
        signing.tag("v1", "good")
        result = mirror.fetch()
        reasons = {refusal.name: refusal.reason for refusal in result.refused}
        assert [change.ref for change in result.changes] == ["refs/tags/v1"]
        assert "no object of its own" in reasons["refs/tags/light"]
        assert "has none" in reasons["refs/tags/unsigned"]
        assert "not among the allowed" in reasons["refs/tags/stranger"]

    def test_a_signed_tag_counts_only_under_its_own_name(self, signing: Signing, tmp_path: Path) -> None:
        repo = signing.repo
        mirror = mirror_of(repo, tmp_path, signed=("refs/tags/*",), allowed_signers=signing.allow("good"))
        signing.tag("v1", "good")
        mirror.fetch()
        repo.git("update-ref", "refs/tags/v2", repo.tip("refs/tags/v1"))
        assert "another name (v1)" in why(mirror.fetch())

    def test_one_changed_letter_spoils_the_signature(self, signing: Signing, tmp_path: Path) -> None:
        repo = signing.repo
        mirror = mirror_of(repo, tmp_path, signed=("refs/tags/*",), allowed_signers=signing.allow("good"))
        mirror.fetch()
        signing.tag("v1", "good")
        forged = repo.git("cat-file", "tag", "v1").replace("release", "Release", 1) + "\n"
        repo.git(
            "update-ref", "refs/tags/v1", repo.git("hash-object", "-t", "tag", "-w", "--stdin", data=forged.encode())
        )
        assert "not good" in why(mirror.fetch())

    def test_a_branch_can_require_signed_commits(self, signing: Signing, tmp_path: Path) -> None:
        repo = signing.repo
        mirror = mirror_of(repo, tmp_path, signed=("refs/heads/main",), allowed_signers=signing.allow("good"))
        assert "has none" in why(mirror.fetch())
        good = signing.commit("good")
        assert [change.new for change in mirror.fetch().changes] == [good]
        signing.commit("bad")
        assert "not among the allowed" in why(mirror.fetch())

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
    def test_other_kinds_of_key_count_too(self, kind: str, signing: Signing, tmp_path: Path) -> None:
        signing.key("other", kind)
        mirror = mirror_of(signing.repo, tmp_path, signed=("refs/tags/*",), allowed_signers=signing.allow("other"))
        signing.tag("v1", "other")
        assert mirror.fetch().refused == ()

    @pytest.mark.parametrize("options", ['namespaces="file"', 'namespaces="git",valid-before="20200101"'])
    def test_a_key_allowed_for_something_else_does_not_count(
        self, options: str, signing: Signing, tmp_path: Path
    ) -> None:
        file = signing.allow("good", options=options)
        mirror = mirror_of(signing.repo, tmp_path, signed=("refs/tags/*",), allowed_signers=file)
        mirror.fetch()
        signing.tag("v1", "good")
        why(mirror.fetch())

    def test_without_a_file_of_signers_nothing_counts(self, signing: Signing, tmp_path: Path) -> None:
        signing.tag("v1", "good")
        mirror = mirror_of(signing.repo, tmp_path, signed=("refs/tags/*",), refs=("refs/tags/*",))
        assert "no allowed_signers" in why(mirror.fetch())

    def test_without_ssh_keygen_nothing_counts(
        self, signing: Signing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        signing.tag("v1", "good")
        settings = MirrorSettings(signed=("refs/tags/*",), refs=("refs/tags/*",), allowed_signers=signing.allow("good"))
        mirror = Mirror.open(tmp_path / "m.git", str(signing.repo.path), settings)
        only_git = tmp_path / "bin"
        only_git.mkdir()
        (only_git / "git").symlink_to(needs("git", package="git"))
        monkeypatch.setenv("PATH", str(only_git))
        assert "cannot be judged" in why(mirror.fetch())
