"""What lies between two commits: commits and files, read from this machine's mirror. No origin is asked.

Rules:

* Both directions: commits that only the new one has, and those that only the old one has (a rollback, a forced push).
* Time and memory are bounded, whatever the repository: lists are cut, counts stop, and the result says so.
* A text of a commit or a path is shown as it is stored, one line, bounded. Whoever prints it escapes it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, cast

import attrs

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.errors import InvalidName, MirrorCorrupt, RefNotFound, TreeError
from deploykit.git.commits import History
from deploykit.git.historysplit import split_history
from deploykit.git.objectformat import COMMIT, TAG, TREE, Found
from deploykit.git.objectlinks import commit_links
from deploykit.git.objectreader import ObjectReader
from deploykit.git.store import ObjectStore
from deploykit.git.treechanges import ChangeKind, PathChange, TreeRow, rows_of, tree_changes
from deploykit.messages import one_line
from deploykit.mirror import layout
from deploykit.mirror.refstore import RefStore
from deploykit.names import ObjectId, RefName, RepoName, parse_object_id
from deploykit.settings.node import Settings

#: Commits visited, and paths counted, before a comparison stops; seconds for each of the two.
MOST_COMMITS: Final = 50_000
MOST_FILES: Final = 200_000
SECONDS: Final = 5.0
#: Bytes of a tree or commit, and of each delta base on the way to it.
_MAX_OBJECT: Final = 8 * 1024 * 1024
#: Characters of a path that are shown.
_PATH_TEXT: Final = 1000
_AUTHOR = re.compile(rb"^author (.*?) ?<[^>\n]*> (-?\d{1,12}) [+-]\d{4}$", re.MULTILINE)

Relation = Literal["same", "forward", "back", "parted", "unrelated"]


@attrs.frozen(kw_only=True, slots=True)
class ComparedCommit:
    """A commit of a list. `time` is the author's, None where it is none that a calendar has; `merge`: more parents."""

    id: ObjectId
    subject: str = ""
    author: str = ""
    time: datetime | None = None
    merge: bool = False


@attrs.frozen(kw_only=True, slots=True)
class ChangedFile:
    """A file, link or submodule that differs. Modes are git's, in octal; empty where it is not there."""

    path: str
    kind: ChangeKind
    old_mode: str = ""
    new_mode: str = ""
    old_path: str = ""

    @property
    def mode_changed(self) -> bool:
        """Whether it became executable, a link, a submodule, or the other way round."""
        return bool(self.old_mode and self.new_mode and self.old_mode != self.new_mode)


@attrs.frozen(kw_only=True, slots=True)
class CommitComparison:
    """What lies between two commits of a repository.

    Args:
        old_ref, new_ref: the refs that were asked for; empty where a commit was.
        ahead, behind: commits that only the new one has, and only the old one; newest first, cut at the limit.
        ahead_count, behind_count: how many there are; at least so many where `commits_complete` is false.
        bases: the newest commits that both contain.
        files: that differ, in git's order, cut at the limit. counts: by kind; at least so many where
            `files_complete` is false.
    """

    repo: RepoName
    old: ObjectId
    new: ObjectId
    old_ref: str = ""
    new_ref: str = ""
    ahead: tuple[ComparedCommit, ...] = ()
    ahead_count: int = 0
    behind: tuple[ComparedCommit, ...] = ()
    behind_count: int = 0
    bases: tuple[ObjectId, ...] = ()
    commits_complete: bool = True
    files: tuple[ChangedFile, ...] = ()
    counts: Mapping[ChangeKind, int] = attrs.field(factory=dict, eq=dict, hash=False)
    files_complete: bool = True

    @property
    def file_count(self) -> int:
        """How many files differ."""
        return sum(self.counts.values())

    @property
    def relation(self) -> Relation:
        """How the new commit stands to the old one; `back`: the new one lies in the past of the old one."""
        if self.old == self.new:
            return "same"
        if not self.bases and self.commits_complete:
            return "unrelated"
        if not self.behind_count:
            return "forward"
        return "parted" if self.ahead_count else "back"

    @property
    def truncated(self) -> bool:
        """Whether a list or a count is not whole."""
        listed = (len(self.ahead), len(self.behind), len(self.files))
        whole = listed == (self.ahead_count, self.behind_count, self.file_count)
        return not (whole and self.commits_complete and self.files_complete)


def compare(
    settings: Settings, repo: RepoName, old: str, new: str, *, limit: int = 200, seconds: float = SECONDS
) -> CommitComparison:
    """Return what lies between two commits of a repository, as this machine's mirror has them.

    Args:
        settings: of this machine: its mirrors are below `state`.
        repo: the repository.
        old, new: each a full ref, a tag, a branch or a full commit id.
        limit: most commits of each direction, and most files, that are listed.
        seconds: for the commits, and again for the files.

    Raises:
        RefNotFound: there is no mirror here, or it has no such ref or commit; the text says how to get it.
        MirrorCorrupt: the mirror is damaged.
    """
    path = mirror_path(settings, repo)
    if not layout.is_repository(path):
        raise RefNotFound(f"this machine has no mirror of {repo}", _way_to_get(settings, repo))
    try:
        hash_kind = layout.read_format(path)
        with ObjectStore(path, hash_kind) as objects, ObjectReader(objects.store, max_bytes=_MAX_OBJECT) as reader:
            return _compare(_Source(objects, reader, path), settings, repo, (old, new), limit, seconds)
    except TreeError as error:
        raise MirrorCorrupt(f"the mirror of {repo} cannot be read: {error.problem}", error.remedy) from error
    except OSError as error:
        raise layout.disk_error(error, path) from error


class _Source:
    """The commits and trees of one mirror."""

    def __init__(self, objects: ObjectStore, reader: ObjectReader, path: Path) -> None:
        self._objects = objects
        self._reader = reader
        self._refs = RefStore(path)
        self.id_size = objects.hash_kind.size
        self.find = lru_cache(maxsize=4096)(self._find)  # a walk asks for each commit twice

    def _find(self, oid: bytes) -> Found | None:
        """Return a commit or a tag; None where there is no such object."""
        name = oid.hex().encode()
        try:
            return COMMIT, self._reader.read(name, COMMIT)
        except TreeError as error:
            if not self._objects.holds(oid):
                return None
            try:
                return TAG, self._reader.read(name, TAG)
            except TreeError:
                raise error from None  # damaged, too large, or of a kind that no history has

    def resolve(self, name: str, repo: RepoName, remedy: str) -> tuple[str, bytes]:
        """Return the ref that was named, or an empty text, and the binary id of the commit."""
        refs = self._refs.read()
        ref = next((r for r in (name, f"refs/tags/{name}", f"refs/heads/{name}") if r in refs), "")
        try:
            oid = refs[RefName(ref)] if ref else parse_object_id(name)
        except InvalidName:
            raise RefNotFound(f"the mirror of {repo} has no ref {_shown(name)}", remedy) from None
        if len(oid) != 2 * self.id_size:
            raise RefNotFound(f"the mirror of {repo} has no commit {oid}", "ids have another length there")
        commit = History(self.find, self.id_size).peel(bytes.fromhex(oid))
        found = self.find(commit)
        if found is None or found[0] != COMMIT:
            raise RefNotFound(f"the mirror of {repo} has no commit {oid}", remedy)
        return ref, commit

    def tree(self, commit: bytes) -> bytes:
        """Return the id of a commit's tree, in hex."""
        found = cast("Found", self.find(commit))
        return (
            next(link for kind, link in commit_links(found[1], 2 * self.id_size, commit) if kind == TREE).hex().encode()
        )

    def rows(self, oid: bytes) -> list[TreeRow]:
        """Return the entries of a tree."""
        return rows_of(self._reader.read(oid, TREE), self.id_size, oid)

    def listed(self, commits: Iterable[bytes]) -> tuple[ComparedCommit, ...]:
        """Return commits as people read them."""
        return tuple(_commit(oid, self.find(oid), 2 * self.id_size) for oid in commits)


def _compare(
    source: _Source, settings: Settings, repo: RepoName, names: tuple[str, str], limit: int, seconds: float
) -> CommitComparison:
    remedy = _way_to_get(settings, repo)
    (old_ref, old), (new_ref, new) = (source.resolve(name, repo, remedy) for name in names)
    history = History(source.find, source.id_size, _until(seconds))
    split = split_history(history, new, old, most=MOST_COMMITS)
    in_time = _until(seconds)

    def rows(oid: bytes) -> list[TreeRow]:
        in_time()
        return source.rows(oid)

    changes = tree_changes(rows, source.tree(old), source.tree(new), kept=limit, most=MOST_FILES)
    return CommitComparison(
        repo=repo,
        old=ObjectId(old.hex()),
        new=ObjectId(new.hex()),
        old_ref=old_ref,
        new_ref=new_ref,
        ahead=source.listed(split.only_new[:limit]),
        ahead_count=len(split.only_new),
        behind=source.listed(split.only_old[:limit]),
        behind_count=len(split.only_old),
        bases=tuple(ObjectId(base.hex()) for base in split.bases),
        commits_complete=split.complete,
        files=tuple(_file(change) for change in changes.paths),
        counts=changes.counts,
        files_complete=changes.complete,
    )


def _until(seconds: float) -> Callable[[], None]:
    end = time.monotonic() + seconds

    def in_time() -> None:
        if time.monotonic() > end:
            raise TimeoutError

    return in_time


def _commit(oid: bytes, found: Found | None, hex_size: int) -> ComparedCommit:
    if found is None or found[0] != COMMIT:  # the history ends here: a shallow copy of it
        return ComparedCommit(id=ObjectId(oid.hex()))
    raw = found[1]
    head, _, message = raw.partition(b"\n\n")
    author = _AUTHOR.search(head)
    subject = message.lstrip(b"\n").partition(b"\n")[0]
    parents = sum(kind == COMMIT for kind, _ in commit_links(raw, hex_size, oid))
    return ComparedCommit(
        id=ObjectId(oid.hex()),
        subject=one_line(subject[:2000].decode("utf-8", "replace")),
        author=one_line(author[1][:1000].decode("utf-8", "replace"), 100) if author else "",
        time=_time(int(author[2])) if author else None,
        merge=parents > 1,
    )


def _time(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _file(change: PathChange) -> ChangedFile:
    return ChangedFile(
        path=_path(change.path),
        kind=change.kind,
        old_mode=f"{change.old_mode:06o}" if change.old_mode else "",
        new_mode=f"{change.new_mode:06o}" if change.new_mode else "",
        old_path=_path(change.old_path),
    )


def _path(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    shown = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= _PATH_TEXT else shown[:_PATH_TEXT] + "…"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def _way_to_get(settings: Settings, repo: RepoName) -> str:
    if repo in settings.repositories:
        return "a running agent fetches it, and so does `deploykit agent --once`"
    return f"add [repositories.{_key(repo)}] with its url to the settings of this machine, and run an agent here"


def _key(repo: RepoName) -> str:
    return repo if re.fullmatch(r"[A-Za-z0-9_-]+", repo) else f'"{repo}"'


__all__ = ["ChangedFile", "ComparedCommit", "CommitComparison", "Relation", "compare"]
