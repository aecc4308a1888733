"""After any history an origin goes through, our mirror holds what git's own mirror holds, and git finds it sound."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from deploykit.mirror import Mirror, RefChange
from deploykit.mirror.model import zero_like
from deploykit.names import ZERO_ID, ZERO_ID_SHA256, ObjectId, RefName
from deploykit.settings import MirrorSettings
from tests.support.origins import GitRepo, run_git

BRANCHES = ("main", "foo", "foo/bar", "foo/bar/baz", "topic-x", "a.b", "é")
TAGS = ("v1", "v1/rc", "v2", "foo")


@attrs.frozen
class Push:
    """Move a branch by a new commit: on its tip, on another branch's tip (a forced push), on nothing (a new root)."""

    branch: str
    base: str
    files: dict[str, bytes]
    merge: str = ""


@attrs.frozen
class Reset:
    """Move a branch or a tag to where another ref is, or back by one commit."""

    ref: str
    to: str
    back: bool


@attrs.frozen
class Tag:
    """Make or move a tag; annotated, and perhaps on another tag."""

    name: str
    on: str
    annotated: bool


@attrs.frozen
class Delete:
    """Delete a ref."""

    ref: str


@attrs.frozen
class DeleteAll:
    """Delete every ref: the repository is empty again."""


@attrs.frozen
class Head:
    """Rename the default branch, also to one that is not there."""

    branch: str


@attrs.frozen
class Sync:
    """Bring both mirrors up to date; `told`: one ref only, as after a message."""

    told: str | None


Step = Push | Reset | Tag | Delete | DeleteAll | Head | Sync

_branch = st.sampled_from(BRANCHES)
_ref = st.sampled_from([f"refs/heads/{b}" for b in BRANCHES] + [f"refs/tags/{t}" for t in TAGS])
_names = st.sampled_from(["a", "dir/b", "dir/sub/c", "dir.d", "z"])
_bodies = st.one_of(
    st.binary(max_size=40),
    st.integers(1, 400).map(lambda n: b"".join(b"line %d\n" % i for i in range(n))),
)
_pushes: st.SearchStrategy[Step] = st.one_of(
    st.builds(Push, _branch, _branch, st.dictionaries(_names, _bodies, min_size=1, max_size=4), st.just("") | _branch),
    st.builds(Push, _branch, st.just(""), st.dictionaries(_names, _bodies, min_size=1, max_size=2)),
)
_steps: st.SearchStrategy[Step] = st.one_of(
    _pushes,
    st.builds(Reset, _ref, _ref, st.booleans()),
    st.builds(Tag, st.sampled_from(TAGS), _ref, st.booleans()),
    st.builds(Delete, _ref),
    st.builds(DeleteAll),
    st.builds(Head, _branch),
    st.builds(Sync, st.none() | _ref),
    st.builds(Sync, st.none()),
)


def apply(repo: GitRepo, step: Step) -> None:
    """Do it at the origin; what git refuses (a ref in another's way, nothing to tag) does not happen."""
    match step:
        case Push(branch, base, files, merge):
            parents = tuple(dict.fromkeys(p for p in (repo.tip(f"refs/heads/{b}") for b in (base, merge) if b) if p))
            commit = repo.commit(files, branch=None, parents=parents)
            repo.git("update-ref", f"refs/heads/{branch}", commit, check=False)
        case Reset(ref, to, back):
            target = repo.tip(f"{to}^{{commit}}~1" if back else f"{to}^{{commit}}")
            if target:
                repo.git("update-ref", ref, target, check=False)
        case Tag(name, on, annotated):
            if annotated and repo.tip(on):
                repo.git("tag", "-f", "-a", "-m", name, name, on, check=False)
            elif repo.tip(on):
                repo.git("update-ref", f"refs/tags/{name}", repo.tip(on), check=False)
        case Delete(ref):
            repo.git("update-ref", "-d", ref, check=False)
        case DeleteAll():
            for ref in repo.refs():
                repo.git("update-ref", "-d", ref)
        case Head(branch):
            repo.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        case Sync():
            pass


def compare(ours: Mirror, theirs: Path, repo: GitRepo) -> None:
    run_git(theirs, "fetch", "-q", "--prune", "origin")
    result = ours.fetch()
    assert result.refused == ()
    assert ours.refs == GitRepo(theirs).refs() == repo.refs()
    assert ours.head == repo.git("symbolic-ref", "HEAD")
    assert run_git(ours.path, "fsck", "--strict", "--no-dangling", "--connectivity-only") == ""
    assert run_git(ours.path, "show-ref", "-d", check=False) == run_git(theirs, "show-ref", "-d", check=False)


def told(ours: Mirror, repo: GitRepo, ref: str) -> None:
    """What a hook would have said about one ref, and that only this ref moves."""
    before = dict(ours.refs)
    new = repo.refs().get(ref)
    old = before.get(RefName(ref))
    some = new or old
    zero = zero_like(ObjectId(some)) if some else ZERO_ID
    change = RefChange(RefName(ref), ObjectId(old or zero), ObjectId(new or zero))
    result = ours.fetch(change)
    assert result.confirmed is True
    assert not result.gap
    after = dict(ours.refs)
    in_the_way = [refusal for refusal in result.refused if "stand beside" in refusal.reason]
    assert len(in_the_way) == len(result.refused)
    assert after.pop(RefName(ref), None) == (before.get(RefName(ref)) if in_the_way else new)
    before.pop(RefName(ref), None)
    assert after == before


@pytest.mark.timeout(1800)  # thousands of git processes: long on a busy machine
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    first=st.lists(_pushes, min_size=1, max_size=3),
    steps=st.lists(_steps, min_size=3, max_size=14),
    object_format=st.sampled_from(["sha1", "sha1", "sha256"]),
)
def test_our_mirror_equals_gits_after_any_history(first: list[Step], steps: list[Step], object_format: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        repo = GitRepo.make(home / "origin.git", object_format=object_format)
        theirs = home / "theirs.git"
        if object_format == "sha1":
            run_git(home, "clone", "-q", "--mirror", str(repo.path), str(theirs))
        else:  # git 2.39 takes an empty SHA-256 repository for a SHA-1 one when it clones
            GitRepo.make(theirs, object_format=object_format)
            run_git(theirs, "remote", "add", "--mirror=fetch", "origin", str(repo.path))
        with Mirror.open(home / "ours.git", str(repo.path), MirrorSettings(max_delete_percent=100)) as ours:
            for step in [*first, *steps, Sync(None)]:
                apply(repo, step)
                event(type(step).__name__)
                if isinstance(step, Sync) and step.told is not None:
                    told(ours, repo, step.told)
                elif isinstance(step, Sync):
                    compare(ours, theirs, repo)
            assert run_git(ours.path, "fsck", "--strict", "--no-dangling") == ""


def test_the_zero_id_has_the_length_of_the_repositorys_ids() -> None:
    assert zero_like(ObjectId("a" * 64)) == ZERO_ID_SHA256
    assert zero_like(ObjectId("a" * 40)) == ZERO_ID
