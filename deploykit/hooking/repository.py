"""A git repository as its hook sees it: which commits a push brought, read with the `git` that runs the hook.

Rules, for few processes and little reading:

* One `git cat-file --batch` reads the tips, the commits in a straight line between old and new, and all that the
  messages list.
* Other refs (merges, long or rewritten history, new refs) are listed by one `git rev-list` for all refs of a kind.
* A ref whose history touches old commits of other refs gets a listing of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

from deploykit.errors import HookError
from deploykit.hooking.attribution import NewCommits, attribute, parse_listing
from deploykit.hooking.commits import Parsed, parse_commit
from deploykit.hooking.process import Program, child_environment, run_program
from deploykit.messages.source import MAX_COMMITS, Commit
from deploykit.names import ObjectId, RefName, is_zero
from deploykit.settings.hooks import read_plain

#: Commits read in search of straight lines; with more, one listing is quicker.
_MAX_READ = 4 * MAX_COMMITS
#: Commits listed for one push: with more than 2,000 refs each gets fewer, so that a mirrored repository fits the spool.
_MAX_LISTED = 2000 * MAX_COMMITS
#: Refs times commits to attribute, some seconds of work: beyond it a push goes without its commits.
_MAX_PRODUCT = 1 << 33
_MAX_CONFIG = 1 << 22
_CONFIG_PLACES = (
    "/etc/gitconfig",
    "{home}/.gitconfig",
    "{home}/.config/git/config",
    "{git}/config",
    "{git}/config.worktree",
)


class Change(NamedTuple):
    """One line of the hook's input."""

    old: ObjectId
    new: ObjectId
    ref: RefName


class RefHistory(NamedTuple):
    """What a push brought to one ref: how many commits, the newest of them, and whether older ones were dropped."""

    total: int = 0
    commits: tuple[Commit, ...] = ()
    forced: bool = False


class _Move(NamedTuple):
    """A ref that points to a commit: its position in the push, and the commits it moved between."""

    position: int
    tip: str
    base: str  # empty: created


class PushedRepository:
    """A repository, for the time of one hook.

    Args:
        path: its git directory, absolute.
        environ: the hook's environment.
    """

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self.path = path
        self._most = MAX_COMMITS
        # Replace refs and grafts would show another history than the one that was pushed.
        env = {"GIT_DIR": path, "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"}
        env["GIT_NO_LAZY_FETCH"] = "1"  # a missing object is not fetched from elsewhere while a push waits
        self._env = child_environment(environ, env)

    def config(self) -> list[tuple[str, str]]:
        """Return git config's `deploykit.*`, without that prefix. git runs only if a configuration file mentions us."""
        home = self._env.get("HOME", "")
        if not any(_mentions(place.format(home=home, git=self.path)) for place in _CONFIG_PLACES):
            return []
        # Everything: asked for our keys alone, git fails where there are none.
        raw = run_program(("git", "config", "--null", "--list"), env=self._env, deadline=monotonic() + 10)
        entries = (entry.partition("\n") for entry in raw.decode("utf-8", "surrogateescape").split("\0"))
        ours = ((key.removeprefix("deploykit."), v, found) for key, found, v in entries if key.startswith("deploykit."))
        return [(key, value if found else "true") for key, value, found in ours]

    def histories(self, changes: Sequence[Change], *, deadline: float) -> list[RefHistory]:
        """Return what each change brought.

        Raises:
            HookError: git cannot be run, failed, or the deadline passed.
        """
        histories = [RefHistory()] * len(changes)
        kept = [index for index, change in enumerate(changes) if not is_zero(change.new)]
        if not kept:
            return histories
        with Program(("git", "cat-file", "--batch"), env=self._env, deadline=deadline) as batch:
            reader = _Reader(batch)
            moves = _moves(reader, changes, kept)
            for index in {*kept}.difference(move.position for move in moves):
                # A blob or a tree does not follow from anything.
                histories[index] = RefHistory(forced=not is_zero(changes[index].old))
            self._most = max(1, min(MAX_COMMITS, _MAX_LISTED // len(kept)))
            brought, forced = self._attribute_moves(reader, moves, changes, deadline)
            reader.read(oid for new in brought.values() for oid in new.newest[: self._most])
            for index, new in brought.items():
                commits = tuple(reader.known[oid].commit for oid in new.newest[: self._most] if oid in reader.known)
                histories[index] = RefHistory(new.total, commits, index in forced)
        return histories

    def _attribute_moves(
        self, reader: _Reader, moves: Sequence[_Move], changes: Sequence[Change], deadline: float
    ) -> tuple[dict[int, NewCommits], set[int]]:
        """Return the new commits by the index of their change, and the indexes of those that dropped commits."""
        found: dict[int, NewCommits] = {}
        created = [move for move in moves if not move.base]
        left = _straight(reader, [move for move in moves if move.base], found)
        if len(left) > 1:
            listing = self._list([m.tip for m in left], [m.base for m in left], deadline)
            for move, new in zip(left, self._attribute(listing, [m.tip for m in left]), strict=True):
                if new.borders <= {move.base}:
                    found[move.position] = new
        for move in left:
            if move.position not in found:
                listing = self._list([move.tip], [move.base], deadline)
                (found[move.position],) = self._attribute(listing, [move.tip])
        # Old is behind new exactly if it is a parent of something that only new reaches.
        forced = {m.position for m in moves if m.base and m.base != m.tip and m.base not in found[m.position].borders}
        if created:
            tips = [move.tip for move in created]
            listing = self._list(tips, self._before(changes, deadline), deadline)
            found |= {move.position: new for move, new in zip(created, self._attribute(listing, tips), strict=True)}
        return found, forced

    def _attribute(self, listing: Sequence[tuple[str, list[str]]], tips: Sequence[str]) -> list[NewCommits]:
        if len(listing) * len(tips) > _MAX_PRODUCT:
            raise HookError(f"{len(tips)} refs with {len(listing)} commits are too many to attribute")
        return attribute(listing, tips, self._most)

    def _list(self, tips: Iterable[str], without: Iterable[str], deadline: float) -> list[tuple[str, list[str]]]:
        """List what is reachable from `tips` and not from `without`, newest first, children before parents."""
        words = "".join(
            [*(f"{oid}\n" for oid in dict.fromkeys(tips)), *(f"^{oid}\n" for oid in dict.fromkeys(without))]
        )
        raw = run_program(
            ("git", "rev-list", "--date-order", "--parents", "--ignore-missing", "--stdin"),
            env=self._env,
            deadline=deadline,
            stdin=words.encode(),
        )
        return parse_listing(raw)

    def _before(self, changes: Sequence[Change], deadline: float) -> list[str]:
        """Return what the refs held before the push: those it did not touch, and the old ends of those it did."""
        raw = run_program(
            ("git", "for-each-ref", "--format=%(objectname) %(refname)"), env=self._env, deadline=deadline
        )
        touched = {change.ref.encode("utf-8", "surrogateescape") for change in changes}
        lines = (line.partition(b" ") for line in raw.splitlines())
        kept = [oid.decode("ascii") for oid, _, ref in lines if ref not in touched]
        return kept + [change.old for change in changes if not is_zero(change.old)]


class _Reader:
    """Reads commits, each once."""

    def __init__(self, batch: Program) -> None:
        self._batch = batch
        self.known: dict[str, Parsed] = {}

    def tips(self, objects: Iterable[str]) -> dict[str, str]:
        """Return the commit that each object is or, as a tag, points to; what points to none is left out."""
        names = list(dict.fromkeys(objects))
        found = {}
        for name, (oid, kind, raw) in zip(names, self._batch.ask([f"{n}^{{commit}}" for n in names]), strict=True):
            if kind == "commit":
                found[name] = oid
                self.known.setdefault(oid, parse_commit(oid, raw))
        return found

    def read(self, oids: Iterable[str]) -> None:
        """Read those commits that are not known yet and are there."""
        wanted = [oid for oid in dict.fromkeys(oids) if oid not in self.known]
        for oid, kind, raw in self._batch.ask(wanted):
            if kind == "commit":
                self.known[oid] = parse_commit(oid, raw)


def _moves(reader: _Reader, changes: Sequence[Change], kept: Sequence[int]) -> list[_Move]:
    """Return the commits that the refs moved between. A ref to something else than a commit has none."""
    # The old end of a branch is a commit; only a tag's may be an object that points to one.
    old_tags = [c.old for c in changes if not is_zero(c.old) and not is_zero(c.new) and _may_be_tag(c.ref)]
    commits = reader.tips([*(changes[index].new for index in kept), *old_tags])
    moves = []
    for index in kept:
        change = changes[index]
        tip = commits.get(change.new)
        if tip is not None:
            old = "" if is_zero(change.old) else str(change.old)
            moves.append(_Move(index, tip, commits.get(old, old)))
    return moves


def _may_be_tag(ref: RefName) -> bool:
    return not ref.startswith("refs/heads/")


def _straight(reader: _Reader, moves: Sequence[_Move], found: dict[int, NewCommits]) -> list[_Move]:
    """Add to `found` the moves along a line of single parents, the usual case; return the other moves."""
    lines: dict[_Move, list[str]] = {}
    for move in moves:
        if move.tip == move.base:
            found[move.position] = NewCommits(0, (), frozenset())
        else:
            lines[move] = [move.tip]
    left: list[_Move] = []
    read = 0
    while lines:
        ends = {line[-1] for line in lines.values()}
        read += len(ends - reader.known.keys())
        if read > _MAX_READ:
            return left + list(lines)
        reader.read(ends)
        for move, line in list(lines.items()):
            commit = reader.known.get(line[-1])
            if commit is None or len(commit.parents) != 1 or len(line) > MAX_COMMITS:
                left.append(move)
                del lines[move]
            elif commit.parents[0] == move.base:
                found[move.position] = NewCommits(len(line), tuple(line[:MAX_COMMITS]), frozenset({move.base}))
                del lines[move]
            else:
                line.append(commit.parents[0])
    return left


def _mentions(path: str) -> bool:
    """Return whether a configuration file may hold a setting of ours, itself or by an include."""
    try:
        text = read_plain(path, _MAX_CONFIG).lower()
    except OSError as error:
        return error.errno == errno.EFBIG  # too long to search: git reads it
    return b"deploykit" in text or b"[include" in text
