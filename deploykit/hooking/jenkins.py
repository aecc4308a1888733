"""A Jenkins build to a message, from the variables that Jenkins gives it (its own, the git plugin's, multibranch's).

A build that deploykit asked for carries `DEPLOYKIT_CORRELATION_ID` as a parameter, and may carry `DEPLOYKIT_REPO`,
`DEPLOYKIT_REF` and `DEPLOYKIT_PROJECT`: they win over what Jenkins says, which has its own names for things. Parameters
are set by whoever may start the build; nothing is done with them but to tell them on, each parsed as what it must be.
Which commit was built, though, is for Jenkins to say (`GIT_COMMIT`): the branch may have moved since it was asked for,
and a result that opens a gate must not be had for a commit that was never built. `DEPLOYKIT_COMMIT` counts only where
Jenkins says nothing, and never in a signed result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, cast, get_args

from deploykit.errors import HookError, InvalidName, MessageError
from deploykit.hooking import say
from deploykit.hooking.enqueue import enqueue
from deploykit.hooking.options import parse_words
from deploykit.hooking.origin import host_source
from deploykit.messages.base import new_id, one_line
from deploykit.messages.build import BuildFinished, BuildOutcome, BuildStarted
from deploykit.names import ObjectId, RefName, RepoName, parse_object_id, parse_ref_name, parse_repo_name
from deploykit.settings.hooks import HookSettings, load_hook_settings
from deploykit.wire.field_types import identifier

T = TypeVar("T")

_USAGE: Final = "jenkins-notify [--config FILE] begin|success|failure|unstable|aborted"
_SVN_LAYOUT: Final = ("trunk", "branches", "tags")
#: What else people and Jenkins call it: the original helper's options, and `currentBuild.currentResult`.
_ALSO: Final = {"-b": "begin", "-p": "success", "-c": "failure", "not_built": "aborted"}


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """Tell of one build; see `deploykit.hooking.run`."""
    if "--help" in argv or "-h" in argv:
        say(f"usage: {_USAGE}")
        return 0
    words = parse_words(argv, _USAGE)
    settings = load_hook_settings("", system_file=words.config)
    strict[0] = settings.strict
    if len(words.rest) != 1:
        raise HookError("what became of the build is not said", f"usage: {_USAGE}")
    message = message_of(words.rest[0], settings, os.environ)
    say(str(enqueue([message], settings, os.environ, sign=isinstance(message, BuildFinished))))
    return 0


def message_of(word: str, settings: HookSettings, environ: Mapping[str, str]) -> BuildStarted | BuildFinished:
    """Make the event of one build.

    Raises:
        HookError: no such outcome, or this is not a Jenkins build.
    """
    said = _ALSO.get(word.lower(), word.lower())
    if said != "begin" and said not in get_args(BuildOutcome):
        raise HookError(f"no such outcome: {word!a}", f"usage: {_USAGE}")
    job = one_line(environ.get("JOB_NAME", ""))
    if not job:
        raise HookError("JOB_NAME is not set", "run this from a Jenkins build")
    own = new_id()
    number = environ.get("BUILD_NUMBER", "")
    common = {
        "id": own,
        "correlation_id": _parsed(identifier, environ.get("DEPLOYKIT_CORRELATION_ID", "")) or own,
        "source": host_source("jenkins"),
        "job": job,
        "number": int(number) if number.isascii() and number.isdecimal() and len(number) < 16 else 0,
        "url": one_line(environ.get("BUILD_URL") or environ.get("JOB_URL", ""), 2000),
        "repo": repo_of(settings, environ),
        "ref": ref_of(environ),
        "commit": commit_of(environ, signed=bool(settings.signing_key)),
        "project": one_line(environ.get("DEPLOYKIT_PROJECT", "")),
    }
    if said == "begin":
        return BuildStarted(**common)  # type: ignore[arg-type]  # each is of its field's type
    return BuildFinished(outcome=cast(BuildOutcome, said), **common)  # type: ignore[arg-type]  # likewise


def repo_of(settings: HookSettings, environ: Mapping[str, str]) -> RepoName | None:
    """Which repository was built: as told by us, by the settings, by its URL, or by the original's way to name a
    remote after its repository (`GIT_BRANCH=shop/main`)."""
    told = _parsed(parse_repo_name, environ.get("DEPLOYKIT_REPO", ""))
    if told or settings.repo:
        return told or settings.repo
    remote, slash, _ = environ.get("GIT_BRANCH", "").partition("/")
    if slash and not environ.get("BRANCH_NAME") and remote not in ("origin", "refs", "remotes", "tags"):
        return _parsed(parse_repo_name, remote)
    url = environ.get("GIT_URL") or environ.get("GIT_URL_1", "")
    if not url:
        url = (environ.get("SVN_URL") or environ.get("SVN_URL_1", "")) + "/"
        for part in _SVN_LAYOUT:
            url = url.partition(f"/{part}/")[0]
    path = url.rstrip("/").removesuffix(".git").replace(":", "/")
    return _parsed(parse_repo_name, path.rpartition("/")[2])


def ref_of(environ: Mapping[str, str]) -> RefName | None:
    """Which ref was built: as told by us, by a multibranch job, or by the git plugin."""
    told = _parsed(parse_ref_name, environ.get("DEPLOYKIT_REF", ""))
    if told:
        return told
    if environ.get("TAG_NAME"):
        return _parsed(parse_ref_name, f"refs/tags/{environ['TAG_NAME']}")
    if environ.get("BRANCH_NAME") and not environ.get("CHANGE_ID"):
        return _parsed(parse_ref_name, f"refs/heads/{environ['BRANCH_NAME']}")
    branch = environ.get("GIT_BRANCH", "").removeprefix("refs/remotes/").removeprefix("remotes/")
    if branch.startswith(("refs/heads/", "refs/tags/")):
        return _parsed(parse_ref_name, branch)
    remote, slash, name = branch.partition("/")
    name = name if slash and remote != "tags" else branch  # `origin/main`, `tags/v1`, or a bare `main`
    if not name or name in ("detached", "HEAD"):
        return None
    return _parsed(parse_ref_name, f"refs/{name}" if name.startswith("tags/") else f"refs/heads/{name}")


def commit_of(environ: Mapping[str, str], *, signed: bool = False) -> ObjectId | None:
    """Which commit was built: as Jenkins says; what was asked for is only a guess at it, which is not signed."""
    built = _parsed(parse_object_id, environ.get("GIT_COMMIT", "").lower())
    return built or (None if signed else _parsed(parse_object_id, environ.get("DEPLOYKIT_COMMIT", "").lower()))


def _parsed(parse: Callable[[object], T], text: str) -> T | None:
    try:
        return parse(text) if text else None
    except (InvalidName, MessageError):
        return None  # Jenkins' own variables may hold anything; the event is true without it
