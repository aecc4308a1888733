"""Check what a hook would publish, and whether script, settings, spool and broker allow it. Changes nothing."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from deploykit.bus import Bus
from deploykit.config import load_settings
from deploykit.errors import DeploykitError, HookError, KeyFileError, SettingsError
from deploykit.hooking import debian, git, installer, jenkins, svn
from deploykit.hooking.enqueue import frames_of
from deploykit.hooking.places import HookPlace, find_place
from deploykit.hooking.process import child_environment, find_program
from deploykit.hooking.repository import PushedRepository
from deploykit.hooking.scripts import Kind, is_ours
from deploykit.messages import BuildFinished, Message, PackagePublished
from deploykit.messages.topics import topic_of
from deploykit.names import ZERO_ID
from deploykit.operations.findings import Finding, Verdict
from deploykit.outbox import Outbox
from deploykit.settings.hooks import SYSTEM_FILE, HookSettings, default_spool, load_hook_settings
from deploykit.settings.node import Settings
from deploykit.trust.keyfiles import load_signing_key


def check(
    path: Path, kind: Kind | None = None, *, config: str = SYSTEM_FILE, timeout: float = 5.0
) -> Iterator[Finding]:
    """Check all that a hook needs, in the order in which it needs it, and yield what is found.

    Args:
        path: a repository, gitolite's home, or the directory for a program.
        kind: what is at `path`; None finds out.
        config: the system's settings file, or what a program is given as `--config`.
        timeout: seconds that the broker may take to answer.

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
        yield from (Finding(check="settings", verdict="error", text=problem) for problem in error.problems)
    except DeploykitError as error:
        yield Finding(check="settings", verdict="error", text=str(error))
    if settings is None:
        return
    yield Finding(check="settings", verdict="ok", text=_read_from(settings))
    yield from _events(place, settings)
    yield from _key(place, settings)
    if place.kind == "debian":
        yield from _packages(settings)
    spool, shared = (settings.spool, True) if settings.spool else default_spool(os.environ)
    relayed = False
    for finding in _spool(spool, shared):
        relayed |= finding.check == "relay"
        yield finding
    yield from _relay(settings, spool, relayed=relayed, timeout=timeout)
    if os.geteuid() == 0:
        yield Finding(check="user", verdict="note", text="checked as root; check it as the user that pushes, too")


# -- the script --------------------------------------------------------------------------------------------------------


def _script(place: HookPlace) -> Iterator[Finding]:
    script = place.script
    if not script.exists() or not is_ours(script):
        found = "another hook is installed" if script.exists() else "not installed"
        text = f"{script}: {found} (deploykit hooks install {'--chain ' if script.exists() else ''}…)"
        yield Finding(check="script", verdict="error", text=text)
        return
    if not os.access(script, os.X_OK):
        yield Finding(check="script", verdict="error", text=f"{script} is not executable (chmod 755 {script})")
        return
    failure = _start_failure(script, place.kind)
    if failure:
        yield Finding(check="script", verdict="error", text=f"{script} does not start: {failure}")
    elif script.read_text() != installer.script_text(place.kind):
        text = f"{script} works, but is not the script of this installation (deploykit hooks install … replaces it)"
        yield Finding(check="script", verdict="warning", text=text)
    else:
        yield Finding(check="script", verdict="ok", text=str(script))


def _start_failure(script: Path, kind: Kind) -> str:
    """Return why the script does not start; empty when it does.

    Its own interpreter is started as the kernel would do it, in an empty environment, and loads what the script loads.
    """
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


def _read_from(settings: HookSettings) -> str:
    """Return where the settings in force come from."""
    of_git = f"git config (deploykit: {', '.join(settings.git_config)})" if settings.git_config else ""
    return ", ".join(filter(None, (*settings.files, of_git))) or "no file and no git config: the defaults are used"


def _settings(place: HookPlace, system_file: str) -> HookSettings:
    path = os.path.realpath(place.base)
    match place.kind:
        case "git":
            pairs = PushedRepository(path, os.environ).config()
            return load_hook_settings(path, config=pairs, system_file=system_file)
        case "svn":
            return load_hook_settings(path, system_file=system_file)
        case _:
            return load_hook_settings("", system_file=system_file)


# -- what it would publish ---------------------------------------------------------------------------------------------


def _events(place: HookPlace, settings: HookSettings) -> Iterator[Finding]:
    try:
        messages = _samples(place, settings)
        for message in messages:
            native = not settings.legacy or (bool(settings.signing_key) and isinstance(message, BuildFinished))
            frames = frames_of(message, legacy=not native)
            form = "native" if native else "the original's form"
            text = f"{message.summary} -> {topic_of(message, settings.topics)} ({form}, {len(frames[0].body)} bytes)"
            yield Finding(check="event", verdict="ok", text=text)
    except DeploykitError as error:
        yield Finding(check="event", verdict="error", text=str(error))
        return
    if not messages:
        yield Finding(check="event", verdict="note", text=_NO_SAMPLE[place.kind])


_NO_SAMPLE: Final[dict[Kind, str]] = {
    "git": "nothing was pushed yet: no event to show",
    "svn": "nothing was committed yet: no event to show",
    "gitolite": "each repository has a name and settings of its own; check one, too (…/repositories/NAME.git)",
    "debian": "no package is waiting: no event to show",
}
#: A build as Jenkins describes it, where this runs in none.
_SAMPLE_BUILD: Final = {
    "JOB_NAME": "example", "BUILD_NUMBER": "1", "BUILD_URL": "https://jenkins.example.org/job/example/1/",
    "GIT_BRANCH": "origin/main", "GIT_URL": "https://git.example.org/example.git", "GIT_COMMIT": "1" * 40,
}  # fmt: skip


def _samples(place: HookPlace, settings: HookSettings) -> list[Message]:
    """Return the messages that would be published if the newest ref, revision or package came in now."""
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
    """Return the message about a package, its fields taken from the file's name."""
    name, version, architecture = [*upload.file.removesuffix(".deb").split("_"), "?", "?"][:3]
    return PackagePublished(
        source="packages", name=name, version=version, architecture=architecture, distribution=upload.distribution,
        file=upload.file,
    )  # fmt: skip


def _packages(settings: HookSettings) -> Iterator[Finding]:
    """Check the programs and directories of `reprepro-incoming`."""
    for name in ("incoming", "archive", "reprepro"):
        path = getattr(settings, name)
        if not path:
            yield Finding(check=name, verdict="error", text="not set in the settings")
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            problem = "this user may not change" if Path(path).is_dir() else "there is no directory"
            yield Finding(check=name, verdict="error", text=f"{problem} {path}")
    distributions = Path(settings.reprepro, "conf", "distributions")
    if settings.reprepro and not distributions.is_file():
        text = f"{distributions} is missing: reprepro accepts no package"
        yield Finding(check="reprepro", verdict="error", text=text)
    for program in ("reprepro", "dpkg-deb"):
        try:
            find_program(program, child_environment(os.environ, {}))
        except HookError as error:
            yield Finding(check=program, verdict="error", text=str(error))


def _key(place: HookPlace, settings: HookSettings) -> Iterator[Finding]:
    if place.kind != "jenkins":
        return
    if not settings.signing_key:
        text = "build results are not signed: no gate accepts them (set signing_key)"
        yield Finding(check="signing key", verdict="warning", text=text)
        return
    try:
        key = load_signing_key(Path(settings.signing_key))
    except KeyFileError as error:
        yield Finding(check="signing key", verdict="error", text=str(error))
    else:
        yield Finding(check="signing key", verdict="ok", text=f"{settings.signing_key} {key.fingerprint}")


# -- where it would go -------------------------------------------------------------------------------------------------


def _spool(path: str, shared: bool) -> Iterator[Finding]:
    if not os.path.lexists(path):
        parent = next(p for p in Path(path).parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            text = f"{path} does not exist yet; the first hook makes it, for {'its group' if shared else 'this user'}"
            yield Finding(check="spool", verdict="warning", text=text)
        else:
            text = f"{path} does not exist, and this user cannot make it in {parent}"
            yield Finding(check="spool", verdict="error", text=text)
        return
    try:
        outbox = Outbox(path, create=False)
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if not os.access(path, os.W_OK | os.X_OK):
            text = f"this user may not write to {path}, mode {mode:04o} (add it to the group of the spool)"
            yield Finding(check="spool", verdict="error", text=text)
            return
        yield Finding(check="spool", verdict="ok", text=f"{path}, mode {mode:04o}")
        if outbox.relay_listens():
            yield Finding(check="relay", verdict="ok", text="running")
    except DeploykitError as error:
        yield Finding(check="spool", verdict="error", text=str(error))


def _relay(settings: HookSettings, spool: str, *, relayed: bool, timeout: float) -> Iterator[Finding]:
    """Check whether this user could start a relay; where one is running, its settings can only be a warning."""
    worse: Verdict = "warning" if relayed else "error"
    if not settings.relay:
        text = "the hook starts none; keep one running" if relayed else "none is running, and the hook starts none"
        yield Finding(check="relay", verdict="ok" if relayed else "error", text=text)
        return
    try:
        relay = load_settings(Path(settings.relay))
    except SettingsError as error:
        for problem in error.problems:
            yield Finding(check="relay settings", verdict=worse, text=problem)
        if not relayed:
            text = "none is running, and this user cannot start one: events wait in the spool"
            yield Finding(check="relay", verdict=worse, text=text)
        return
    yield Finding(check="relay settings", verdict="ok", text=settings.relay)
    if os.path.realpath(relay.outbox.path) != os.path.realpath(spool):
        text = f"{settings.relay} names spool {relay.outbox.path}, the hook queues in {spool}"
        yield Finding(check="relay settings", verdict="warning", text=text)
    if not settings.legacy and relay.topics.source != settings.topics.source:
        text = f"{settings.relay} names {relay.topics.source}, the hook sends to {settings.topics.source}"
        yield Finding(check="topics", verdict="warning", text=text)
    yield _broker(relay, timeout)


def _broker(settings: Settings, timeout: float) -> Finding:
    try:
        with Bus(settings.broker.at_once()) as bus:
            if bus.wait_connected(timeout):
                return Finding(check="broker", verdict="ok", text="answers")
    except DeploykitError as error:
        return Finding(check="broker", verdict="error", text=str(error))
    return Finding(check="broker", verdict="warning", text=f"no answer in {timeout:.0f} s; events wait in the spool")
