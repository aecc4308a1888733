"""Known build results for commands: which there are, whether they count now, and which a deploy should carry."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs

from deploykit.builds import BuildStore, SignedResult, StoredResult, judge, judge_to_keep, read_results
from deploykit.builds.store import builds_of
from deploykit.errors import BuildStoreError, KeyFileError, MessageError, UsageError
from deploykit.messages import MAX_EVIDENCE, BuildEvidence, BuildFinished, utc_now
from deploykit.names import ObjectId, RepoName, SiteName
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust

#: Characters of all evidence of a command: the rest of it must fit into one message too.
_ROOM: Final = 900_000
#: Bytes of the largest file of results.
_MAX_FILE: Final = 64 * 1024 * 1024


@attrs.frozen(kw_only=True, slots=True)
class ListedResult:
    """A stored result, and why it does not count at this moment; `objection` is empty where it counts."""

    stored: StoredResult
    objection: str


@attrs.frozen(kw_only=True, slots=True)
class ImportedResult:
    """What became of a result that was imported: kept, known before, or not kept, and then why."""

    summary: str
    new: bool = False
    objection: str = ""


def listed(settings: Settings, found: Iterable[StoredResult]) -> Iterator[ListedResult]:
    """Yield stored results with what keeps them from counting now."""
    trust, remember, now = _trust(settings), timedelta(seconds=settings.builds.remember), utc_now()
    for each in found:
        try:
            objection = judge(each.signed, trust, now, remember=remember, again=True).objection
        except MessageError:
            objection = "it is damaged"
        except KeyFileError as error:
            objection = f"whom to trust cannot be read: {error}"
        yield ListedResult(stored=each, objection=objection)


def find_one(store: BuildStore, job: str, number: int, commit: str = "") -> tuple[StoredResult, ...]:
    """Return what is known of one build.

    Raises:
        UsageError: nothing is.
    """
    found = store.find(job=job, number=number, commit=commit)
    if not found:
        raise UsageError(f"no result of {job} {number} is known here", "see `deploykit builds list`")
    return found


def import_results(settings: Settings, results: Iterable[SignedResult]) -> Iterator[ImportedResult]:
    """Verify results as if they had come over the bus, keep those that count, and yield what became of each.

    Raises:
        KeyFileError: whom to trust cannot be read.
        BuildStoreError: they cannot be kept.
    """
    trust, store, now = _trust(settings), builds_of(settings.state), utc_now()
    for signed in results:
        try:
            known = judge_to_keep(signed, trust, now, remember=timedelta(seconds=settings.builds.remember))
        except MessageError as error:
            yield ImportedResult(summary="a line", objection=str(error))
            continue
        new = not known.objection and store.put(signed, known.result, known.signer, now)
        yield ImportedResult(summary=known.result.summary, new=new, objection=known.objection)


def read_files(paths: Sequence[Path]) -> tuple[SignedResult, ...]:
    """Return the results in files, in every `*.jsonl` of directories, and of standard input for `-`. None is verified.

    Raises:
        UsageError: a file is no such file, or a directory has none.
        OSError: it cannot be read.
    """
    found = list[SignedResult]()
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} has no *.jsonl", "write one with `deploykit builds export`")
        for file in files:
            found += read_results(_content(file), str(file))
    return tuple(found)


def _content(file: Path) -> bytes:
    if str(file) == "-":
        content = sys.stdin.buffer.read(_MAX_FILE + 1)
    else:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise UsageError(f"{file} is larger than {_MAX_FILE} bytes", "export fewer results")
    return content


def evidence_for(
    settings: Settings, site: SiteName, sources: Sequence[tuple[RepoName | None, ObjectId]], files: Sequence[Path]
) -> tuple[tuple[BuildEvidence, ...], tuple[str, ...]]:
    """Return the build results that a deploy should carry, and notes for whoever asks.

    Args:
        settings: of the machine that asks.
        site: that is deployed.
        sources: the commits that would go live, each with its repository where that is known.
        files: further results.

    Raises:
        UsageError: a file holds nothing about these commits.
    """
    read = read_files(files)
    given = {source: _of_commit(read, *source) for source in sources}
    if files and not any(given.values()):
        which = ", ".join(commit[:8] for _, commit in sources)
        raise UsageError(f"no build result of {which} in {', '.join(map(str, files))}", "is it the right commit?")
    found, notes = list[SignedResult](), list[str]()
    chosen = settings.sites.get(site)
    for repo, commit in sources:
        try:
            stored = builds_of(settings.state).find(repo=repo or "", commit=commit)
        except BuildStoreError as error:
            stored = ()
            notes.append(f"known build results are not sent along: {error}")
        known = [*given[repo, commit], *_of_commit((each.signed for each in stored), repo, commit)]
        jobs = chosen.jobs_of(repo) if chosen is not None and repo is not None else ()
        if len(sources) == 1 or jobs or chosen is None:
            found += newest(known, jobs)
    evidence = carried(found)
    if len(sources) > 1 and len(evidence) < len(found):
        notes.append(f"{len(evidence)} of {len(found)} build results are sent along: a command carries no more")
    return evidence, tuple(dict.fromkeys(notes))


def newest(known: Iterable[tuple[SignedResult, BuildFinished]], jobs: Sequence[str]) -> list[SignedResult]:
    """Return the results of the highest number of each job. Pure.

    Args:
        known: results of one commit.
        jobs: those that are required; all jobs where that is not known.
    """
    highest: dict[str, int] = {}
    each_once = {signed.digest: (signed, result) for signed, result in known}
    for _, result in each_once.values():
        if not jobs or result.job in jobs:
            highest[result.job] = max(result.number, highest.get(result.job, 0))
    return [signed for signed, result in each_once.values() if highest.get(result.job) == result.number]


def carried(found: Sequence[SignedResult]) -> tuple[BuildEvidence, ...]:
    """Return the first of these results, as many as a command may carry. Pure."""
    evidence, room = list[BuildEvidence](), _ROOM
    for signed in found[:MAX_EVIDENCE]:
        room -= len(signed.evidence.body) + len(signed.signature)
        if room >= 0:
            evidence.append(signed.evidence)
    return tuple(evidence)


def _of_commit(
    results: Iterable[SignedResult], repo: RepoName | None, commit: ObjectId
) -> list[tuple[SignedResult, BuildFinished]]:
    found = []
    for signed in results:
        try:
            result = signed.unverified()
        except MessageError:
            continue
        if result.commit == commit and repo in (None, result.repo):
            found.append((signed, result))
    return found


def _trust(settings: Settings) -> Trust:
    return Trust.from_settings(settings.trust, settings.node, repos=settings.site_repos)
