"""`deploykit hooks check`: what a hook would do, and whether it could, without queueing or changing anything."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.bus import Bus
from deploykit.config import load_settings
from deploykit.errors import DeploykitError, HookError, KeyFileError, SettingsError
from deploykit.hooking import debian, git, installer, jenkins, svn
from deploykit.hooking.enqueue import frames_of
from deploykit.hooking.places import HookPlace, find_place
from deploykit.hooking.process import child_environment, find_program
from deploykit.hooking.repository import PushedRepository
from deploykit.hooking.scripts import Kind, is_ours
from deploykit.messages import Message, PackagePublished
from deploykit.messages.topics import topic_of
from deploykit.names import ZERO_ID
from deploykit.outbox import Outbox
from deploykit.settings.hooks import SYSTEM_FILE, HookSettings, default_spool, load_hook_settings
from deploykit.settings.node import Settings
from deploykit.trust.keyfiles import load_signing_key

Verdict = Literal["fine", "mind", "wrong"]


@attrs.frozen(kw_only=True, slots=True)
class HookFinding:
    """One thing that was looked at. `mind` is no obstacle; `wrong` is one."""

    subject: str
    verdict: Verdict
    text: str


def check(
    path: Path, kind: Kind | None = None, *, config: str = SYSTEM_FILE, timeout: float = 5.0
) -> Iterator[HookFinding]:
    """Look at all that a hook needs, in the order in which it needs it.

    Args:
        config: the system's settings file, or what a program is given as `--config`.
        timeout: seconds the broker may take to answer.

    Raises:
        UsageError: there is nothing of that kind at `path`.
        InstallError: hooks go somewhere else there.
    """
    place = find_place(path, kind)
    yield from _script(place)
    settings = None
    try:
        settings = _settings(place, config)
    except SettingsError as error:
        yield from (HookFinding(subject="settings", verdict="wrong", text=problem) for problem in error.problems)
    except DeploykitError as error:
        yield HookFinding(subject="settings", verdict="wrong", text=str(error))
    if settings is None:
        return
    read = ", ".join(settings.files) or "none read: the defaults hold"
    yield HookFinding(subject="settings", verdict="fine", text=read)
    yield from _events(place, settings)
    yield from _key(place, settings)
    if place.kind == "debian":
        yield from _packages(settings)
    spool, shared = (settings.spool, True) if settings.spool else default_spool(os.environ)
    relayed = False
    for finding in _spool(spool, shared):
        relayed |= finding.subject == "relay"
        yield finding
    yield from _relay(settings, spool, relayed=relayed, timeout=timeout)
    if os.geteuid() == 0:
        text = "this was checked as root; check it as the user that pushes, too"
        yield HookFinding(subject="user", verdict="mind", text=text)


# -- the script --------------------------------------------------------------------------------------------------------


def _script(place: HookPlace) -> Iterator[HookFinding]:
    script = place.script
    if not script.exists() or not is_ours(script):
        whose = "somebody else's hook is there" if script.exists() else "not there"
        text = f"{script}: {whose} (deploykit hooks install {'--chain ' if script.exists() else ''}…)"
        yield HookFinding(subject="script", verdict="wrong", text=text)
        return
    if not os.access(script, os.X_OK):
        yield HookFinding(subject="script", verdict="wrong", text=f"{script} is not executable (chmod 755 {script})")
        return
    trouble = _does_not_start(script, place.kind)
    if trouble:
        yield HookFinding(subject="script", verdict="wrong", text=f"{script} does not start: {trouble}")
    elif script.read_text() != installer.script_text(place.kind):
        text = f"{script} works, and is not the one of this installation (deploykit hooks install … renews it)"
        yield HookFinding(subject="script", verdict="mind", text=text)
    else:
        yield HookFinding(subject="script", verdict="fine", text=str(script))


def _does_not_start(script: Path, kind: Kind) -> str:
    """Start the script's own interpreter as the kernel would, in an empty environment, and load what it loads."""
    text = script.read_text(errors="replace")
    through_sh = re.search(r'exec (.*) "\$0" "\$@"\n', text.partition('"""')[0])
    command = shlex.split(through_sh[1] if through_sh else text.partition("\n")[0][2:])
    library = re.search(r'^LIBRARY: "list\[str\]" = (\[.*?\])$', text, re.MULTILINE | re.DOTALL)
    module = "git" if kind == "gitolite" else kind
    code = f"import sys; sys.path.extend({library[1] if library else '[]'}); import deploykit.hooking.{module}"
    try:
        done = subprocess.run([*command, "-c", code], env={}, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def _settings(place: HookPlace, system_file: str) -> HookSettings:
    path = os.path.realpath(place.base)
    match place.kind:
        case "git":
            told = PushedRepository(path, os.environ).config()
            return load_hook_settings(path, config=told, system_file=system_file)
        case "svn":
            return load_hook_settings(path, system_file=system_file)
        case _:
            return load_hook_settings("", system_file=system_file)


# -- what it would say -------------------------------------------------------------------------------------------------


def _events(place: HookPlace, settings: HookSettings) -> Iterator[HookFinding]:
    try:
        messages = _samples(place, settings)
        for message in messages:
            frames = frames_of(message, settings)
            form = "the original's form" if settings.legacy else "native"
            text = f"{message.summary} -> {topic_of(message, settings.topics)} ({form}, {len(frames[0].body)} bytes)"
            yield HookFinding(subject="event", verdict="fine", text=text)
    except DeploykitError as error:
        yield HookFinding(subject="event", verdict="wrong", text=str(error))
        return
    if not messages:
        yield HookFinding(subject="event", verdict="mind", text=_NO_SAMPLE[place.kind])


_NO_SAMPLE: Final[dict[Kind, str]] = {
    "git": "nothing was pushed yet that could be told of",
    "svn": "nothing was committed yet that could be told of",
    "gitolite": "each repository has its name and settings; check one of them, too (…/repositories/NAME.git)",
    "debian": "no package waits that could be told of",
}
#: A build as Jenkins describes it, where this runs in none.
_SAMPLE_BUILD: Final = {
    "JOB_NAME": "example", "BUILD_NUMBER": "1", "BUILD_URL": "https://jenkins.example.org/job/example/1/",
    "GIT_BRANCH": "origin/main", "GIT_URL": "https://git.example.org/example.git", "GIT_COMMIT": "1" * 40,
}  # fmt: skip


def _samples(place: HookPlace, settings: HookSettings) -> list[Message]:
    """What would be told if the newest thing in the repository came in now."""
    path = os.path.realpath(place.base)
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    if place.kind == "git":
        command = ["git", f"--git-dir={path}", "for-each-ref", "--count=1", "--sort=-creatordate"]
        done = subprocess.run(
            [*command, "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"],
            env=env | {"HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            check=False,
        )
        line = b"%s %s" % (ZERO_ID.encode(), done.stdout) if done.stdout else b""
        return [*git.messages_of(PushedRepository(path, os.environ), settings, line, os.environ)[0]]
    if place.kind == "svn":
        youngest = subprocess.run(["svnlook", "youngest", path], env=env, capture_output=True, text=True, check=False)
        revision = int(youngest.stdout.strip() or 0)
        return [svn.message_of(path, revision, settings, os.environ)[0]] if revision else []
    if place.kind == "jenkins":
        build = os.environ if os.environ.get("JOB_NAME") else _SAMPLE_BUILD
        return [jenkins.message_of(word, settings, build) for word in ("begin", "success")]
    if place.kind == "debian" and settings.incoming:
        return [_published(upload) for upload in islice(debian.uploads(settings.incoming), 1)]
    return []


def _published(upload: debian.Upload) -> Message:
    """What would be told of a package, its fields read off its name."""
    name, version, architecture = [*upload.file.removesuffix(".deb").split("_"), "?", "?"][:3]
    return PackagePublished(
        source="packages", name=name, version=version, architecture=architecture, distribution=upload.distribution,
        file=upload.file,
    )  # fmt: skip


def _packages(settings: HookSettings) -> Iterator[HookFinding]:
    """The programs and directories of `reprepro-incoming`."""
    for name in ("incoming", "archive", "reprepro"):
        path = getattr(settings, name)
        if not path:
            yield HookFinding(subject=name, verdict="wrong", text="not set in the settings")
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            there = "this user may not change" if Path(path).is_dir() else "there is no directory"
            yield HookFinding(subject=name, verdict="wrong", text=f"{there} {path}")
    distributions = Path(settings.reprepro, "conf", "distributions")
    if settings.reprepro and not distributions.is_file():
        text = f"{distributions} is not there: reprepro takes nothing in"
        yield HookFinding(subject="reprepro", verdict="wrong", text=text)
    for program in ("reprepro", "dpkg-deb"):
        try:
            find_program(program, child_environment(os.environ, {}))
        except HookError as error:
            yield HookFinding(subject=program, verdict="wrong", text=str(error))


def _key(place: HookPlace, settings: HookSettings) -> Iterator[HookFinding]:
    if place.kind != "jenkins":
        return
    if not settings.signing_key:
        text = "build results are not signed: they open no gate (signing_key)"
        yield HookFinding(subject="signing key", verdict="mind", text=text)
        return
    try:
        key = load_signing_key(Path(settings.signing_key))
    except KeyFileError as error:
        yield HookFinding(subject="signing key", verdict="wrong", text=str(error))
    else:
        yield HookFinding(subject="signing key", verdict="fine", text=f"{settings.signing_key} {key.fingerprint}")


# -- where it would go -------------------------------------------------------------------------------------------------


def _spool(path: str, shared: bool) -> Iterator[HookFinding]:
    if not os.path.lexists(path):
        parent = next(p for p in Path(path).parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            text = f"{path} is not there yet; the first hook makes it, for {'its group' if shared else 'this user'}"
            yield HookFinding(subject="spool", verdict="mind", text=text)
        else:
            text = f"{path} is not there, and this user cannot make it in {parent}"
            yield HookFinding(subject="spool", verdict="wrong", text=text)
        return
    try:
        outbox = Outbox(path, create=False)
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if not os.access(path, os.W_OK | os.X_OK):
            text = f"this user may not write to {path}, mode {mode:04o} (add it to the group of the spool)"
            yield HookFinding(subject="spool", verdict="wrong", text=text)
            return
        yield HookFinding(subject="spool", verdict="fine", text=f"{path}, mode {mode:04o}")
        if outbox.relay_listens():
            yield HookFinding(subject="relay", verdict="fine", text="at work")
    except DeploykitError as error:
        yield HookFinding(subject="spool", verdict="wrong", text=str(error))


def _relay(settings: HookSettings, spool: str, *, relayed: bool, timeout: float) -> Iterator[HookFinding]:
    """Whether a relay could be started by this user; with one at work, this only tells of the settings."""
    worse: Verdict = "mind" if relayed else "wrong"
    if not settings.relay:
        text = "none is started by the hook; one must be at work" if relayed else "none is at work, none is started"
        yield HookFinding(subject="relay", verdict="fine" if relayed else "wrong", text=text)
        return
    try:
        told = load_settings(Path(settings.relay))
    except SettingsError as error:
        for problem in error.problems:
            yield HookFinding(subject="relay settings", verdict=worse, text=problem)
        if not relayed:
            text = "none is at work, and this user cannot start one: events wait in the spool"
            yield HookFinding(subject="relay", verdict=worse, text=text)
        return
    yield HookFinding(subject="relay settings", verdict="fine", text=settings.relay)
    if os.path.realpath(told.outbox.path) != os.path.realpath(spool):
        text = f"{settings.relay} names spool {told.outbox.path}, the hook queues in {spool}"
        yield HookFinding(subject="relay settings", verdict="mind", text=text)
    if not settings.legacy and told.topics.source != settings.topics.source:
        text = f"{settings.relay} says {told.topics.source}, the hook sends to {settings.topics.source}"
        yield HookFinding(subject="topics", verdict="mind", text=text)
    yield _broker(told, timeout)


def _broker(settings: Settings, timeout: float) -> HookFinding:
    try:
        with Bus(settings.broker) as bus:
            if bus.wait_connected(timeout):
                return HookFinding(subject="broker", verdict="fine", text="answers")
    except DeploykitError as error:
        return HookFinding(subject="broker", verdict="wrong", text=str(error))
    return HookFinding(subject="broker", verdict="mind", text=f"no answer in {timeout:.0f} s; events wait in the spool")
