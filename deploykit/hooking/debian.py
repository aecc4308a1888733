"""New packages into a Debian repository: incoming/DISTRIBUTION/*.deb -> reprepro -> event -> archive/DISTRIBUTION/.

Rules:

* A step that was cut off is done again without harm: reprepro skips what it has, the event keeps its id, and the move
  to the archive comes last.
* One run at a time, by flock.
* A package that fails stays where it is, is named, and stops no other.
* An event is queued only for a package that the repository lists: reprepro also ends with 0 where it keeps a newer one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Final, NamedTuple

from deploykit.errors import DeploykitError, HookError, LockBusy
from deploykit.hooking.console import print_line
from deploykit.hooking.enqueue import enqueue
from deploykit.hooking.options import parse_words
from deploykit.hooking.origin import host_source
from deploykit.hooking.packages import (
    Control,
    event_id,
    inspect,
    is_distribution_name,
    is_package_name,
    parse_control,
)
from deploykit.hooking.process import child_environment, run_program
from deploykit.messages.package import PackagePublished
from deploykit.settings.hooks import HookSettings, load_hook_settings
from deploykit.system.lock import FileLock

_USAGE: Final = "reprepro-incoming [--config FILE]"
#: reprepro waits for its own lock, and signs; where a key needs a passphrase, it would wait for ever.
_REPREPRO_TIME: Final = 600.0
_DETAIL: Final = 2000
_LOCK: Final = ".deploykit.lock"


class Upload(NamedTuple):
    """One file in the incoming directory."""

    distribution: str
    file: str
    path: str


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """Take in the packages that wait and return the exit code; see `deploykit.hooking.run`."""
    if "--help" in argv or "-h" in argv:
        print_line(f"usage: {_USAGE}")
        return 0
    words = parse_words(argv, _USAGE)
    settings = load_hook_settings("", system_file=words.config)
    strict[0] = settings.strict
    if words.rest:
        raise HookError(f"not understood: {words.rest[0]!a}", f"usage: {_USAGE}")
    missing = [name for name in ("incoming", "archive", "reprepro") if not getattr(settings, name)]
    if missing:
        raise HookError(f"{', '.join(missing)} not set", f"set them in {words.config}")
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(f"{settings.incoming}/{_LOCK}"))
        except LockBusy:
            return 0  # another run is at work, and takes in what waits
        except OSError as error:
            raise HookError(f"cannot lock {settings.incoming}: {error.strerror}", "it is `incoming`") from error
        return _take_all(settings)


def _take_all(settings: HookSettings) -> int:
    """Take in every package that waits; return the exit code."""
    refused = 0
    for upload in uploads(settings.incoming):
        reason = _take(upload, settings, os.environ)
        if reason:
            refused += 1
            print_line(f"{upload.distribution}/{upload.file} stays in incoming: {reason}")
    return 1 if refused and settings.strict else 0


def uploads(incoming: str) -> Iterator[Upload]:
    """Yield the packages that wait, by distribution and name.

    Raises:
        HookError: the directory cannot be read.
    """
    try:
        for distribution in sorted(os.listdir(incoming)):
            directory = f"{incoming}/{distribution}"
            if is_distribution_name(distribution) and os.path.isdir(directory) and not os.path.islink(directory):
                for file in sorted(os.listdir(directory)):
                    if file.endswith(".deb"):
                        yield Upload(distribution, file, f"{directory}/{file}")
    except OSError as error:
        raise HookError(f"cannot list {error.filename}: {error.strerror}", "let this user read it") from error


def _take(upload: Upload, settings: HookSettings, environ: Mapping[str, str]) -> str:
    """Take in one package; return why it was refused, or nothing."""
    if not is_package_name(upload.file):
        return "that is no name for a package"
    try:
        digest = inspect(upload.path)
        if not digest:
            return "it is not whole (yet)"
        control = _control(upload, settings, environ)
        if control is None:
            return "it has no acceptable name, version or architecture"
        printed = _include(upload, control, settings, environ)
        message = PackagePublished(
            id=event_id(upload.distribution, digest),
            source=host_source("packages"),
            name=control.name,
            version=control.version,
            architecture=control.architecture,
            distribution=upload.distribution,
            file=upload.file,
            detail=printed[:_DETAIL],
        )
        queued = enqueue([message], settings, environ)
        _archive(upload, settings.archive)
    except DeploykitError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    print_line(f"{upload.distribution}/{upload.file}: {queued}")
    return ""


def _control(upload: Upload, settings: HookSettings, environ: Mapping[str, str]) -> Control | None:
    raw = run_program(
        ("dpkg-deb", "-f", upload.path, "Package", "Version", "Architecture"),
        env=child_environment(environ, {}),
        deadline=monotonic() + settings.timeout,
        limit=1 << 20,
    )
    return parse_control(raw.decode("utf-8", "replace"))


def _include(upload: Upload, control: Control, settings: HookSettings, environ: Mapping[str, str]) -> str:
    """Run reprepro, check that it lists the package, and return what it printed. It skips what it has already."""
    try:
        raw = _reprepro(("includedeb", upload.distribution, upload.path), settings, environ)
    except HookError as error:
        lock = f"{settings.reprepro}/db/lockfile"
        if "lockfile" not in error.problem:
            raise
        # Left by a reprepro that was killed, or held by one at work: the file names no process, so a person decides.
        raise HookError(f"reprepro is locked by {lock}", f"if no reprepro is at work, remove {lock}") from error
    held = _held(control, upload.distribution, settings, environ)
    if control.version not in held:
        has = f"has {control.name} {', '.join(held)}" if held else f"has no {control.name}"
        raise HookError(f"reprepro left it out: {upload.distribution} {has}")
    return raw.decode("utf-8", "replace")


def _held(control: Control, distribution: str, settings: HookSettings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the versions of a package that a distribution has, those for another architecture marked.

    Of one version, `all` and `amd64` are two packages, and reprepro keeps the first of them.
    """
    which = () if control.architecture == "all" else ("--architecture", control.architecture)
    words = (*which, "--list-format", "${version} ${architecture}\\n", "list", distribution, control.name)
    listed = _reprepro(words, settings, environ).decode("utf-8", "replace").splitlines()
    pairs = (line.partition(" ") for line in listed if line)
    return tuple(dict.fromkeys(v if arch == control.architecture else f"{v} ({arch})" for v, _, arch in pairs))


def _reprepro(words: Sequence[str], settings: HookSettings, environ: Mapping[str, str]) -> bytes:
    signing = {name: environ[name] for name in ("GNUPGHOME",) if name in environ}
    return run_program(
        ("reprepro", "--basedir", settings.reprepro, *words),
        env=child_environment(environ, signing),
        deadline=monotonic() + _REPREPRO_TIME,
        limit=1 << 24,
    )


def _archive(upload: Upload, archive: str) -> None:
    """Move the package out of the way, durably; one of the same name that is there already is replaced."""
    directory = f"{archive}/{upload.distribution}"
    os.makedirs(directory, exist_ok=True)
    target = f"{directory}/{upload.file}"
    try:
        os.rename(upload.path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        half = f"{directory}/.{upload.file}.{os.getpid()}"
        shutil.copy2(upload.path, half)
        _sync(half)
        os.rename(half, target)
        os.unlink(upload.path)
    _sync(directory)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
