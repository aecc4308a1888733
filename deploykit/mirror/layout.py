"""A mirror's directory: an ordinary bare repository with three entries of deploykit in it.

    deploykit.lock     flock: one writer at a time; it ends with its process
    deploykit.json     format version, what origin it mirrors (a digest of the address), what that origin supports
    quarantine/        packs on their way in

Rules:

* A mirror is made whole under another name and renamed: a directory is either a mirror or not there.
* The state file is only memory: a mirror without it is still right.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import MirrorCorrupt, MirrorError, UsageError
from deploykit.git.objectformat import SHA1, HashKind, hash_named
from deploykit.git.transport.protocol import OriginProfile
from deploykit.system.durable import replace_file, sync_directory
from deploykit.system.lock import FileLock

_FORMAT: Final = 1
_STATE: Final = "deploykit.json"
_LOCK: Final = "deploykit.lock"


@attrs.frozen(kw_only=True, slots=True)
class MirrorState:
    """The content of `deploykit.json`."""

    origin: str = ""
    profile: OriginProfile | None = None


def origin_digest(url: str) -> str:
    """Return a name for an address that reveals nothing of it."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def is_repository(path: Path) -> bool:
    """Return whether there is a bare repository at `path`."""
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def create(path: Path, url: str, hash_kind: HashKind = SHA1) -> None:
    """Make an empty mirror at `path`, which must not exist or be an empty directory.

    Raises:
        UsageError: something else is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    fresh.mkdir()
    try:
        for name in ("objects/pack", "objects/info", "refs/heads", "refs/tags", "quarantine"):
            (fresh / name).mkdir(parents=True)
        (fresh / "quarantine").chmod(0o700)
        replace_file(fresh / "HEAD", b"ref: refs/heads/main\n", sync_parent=False)
        replace_file(fresh / "config", _config(hash_kind), sync_parent=False)
        replace_file(fresh / "description", b"A mirror kept by deploykit. Do not push here.\n", sync_parent=False)
        write_state(fresh, MirrorState(origin=origin_digest(url)))
        (fresh / _LOCK).touch(mode=0o600)
        for directory in (*fresh.rglob("*/"), fresh):
            if directory.is_dir():
                sync_directory(directory)
        fresh.rename(path)
        sync_directory(path.parent)
    except OSError as exc:
        shutil.rmtree(fresh, ignore_errors=True)
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            if is_repository(path):
                return  # another process was faster
            raise UsageError(f"{path} is not a mirror and not empty", "give another path") from exc
        raise disk_error(exc, path) from exc


def _config(hash_kind: HashKind) -> bytes:
    version = 0 if hash_kind is SHA1 else 1
    extension = "" if hash_kind is SHA1 else f"[extensions]\n\tobjectformat = {hash_kind.name}\n"
    return (
        f"[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = true\n\tfsync = all\n"
        f"\tlogallrefupdates = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
        f"{extension}"
    ).encode()


def set_format(path: Path, hash_kind: HashKind) -> None:
    """Give a mirror that holds nothing yet another object format."""
    replace_file(path / "config", _config(hash_kind))


def read_format(path: Path) -> HashKind:
    """Return the object format that the mirror's config names."""
    try:
        text = (path / "config").read_text("utf-8", "replace")
    except OSError as exc:
        raise MirrorCorrupt(
            f"cannot read {path}/config: {exc.strerror}", "run `deploykit mirror check`", repository=str(path)
        ) from exc
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() == "objectformat":
            found = hash_named(value.strip().lower())
            if found is None:
                raise MirrorCorrupt(
                    f"{path} has an unknown object format: {value.strip()[:20]!a}", repository=str(path)
                )
            return found
    return SHA1


def read_state(path: Path) -> MirrorState:
    """Read the state file; an empty state when there is none, or it is of an unknown version."""
    try:
        data = json.loads((path / _STATE).read_bytes())
        if data["format"] != _FORMAT:
            return MirrorState()
        profile = data.get("dialect")
        return MirrorState(origin=str(data["origin"]), profile=OriginProfile(**profile) if profile else None)
    except (OSError, ValueError, TypeError, KeyError):
        return MirrorState()


def write_state(path: Path, state: MirrorState) -> None:
    """Write the state file. Losing it costs one round trip, so a full disk is no error here."""
    profile = attrs.asdict(state.profile) if state.profile is not None else None
    document = {"format": _FORMAT, "origin": state.origin, "dialect": profile}
    with contextlib.suppress(OSError):
        replace_file(path / _STATE, [json.dumps(document).encode(), b"\n"], sync_parent=False)


@contextlib.contextmanager
def locked(path: Path, wait: float) -> Iterator[int]:
    """Hold the mirror's lock, and yield its descriptor, for children that must keep it.

    Raises:
        LockBusy: another process held it for `wait` seconds.
    """
    lock = FileLock(path / _LOCK, wait=wait, busy=f"{path} is being fetched by another process", remedy="wait for it")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except OSError as exc:
            raise disk_error(exc, path) from exc
        yield lock.fd


def check_room(path: Path, *, min_bytes: int, min_inodes: int) -> None:
    """Refuse to go on where the disk is nearly full.

    Raises:
        MirrorError: too little is left.
    """
    try:
        usage = os.statvfs(path)
    except OSError as exc:
        raise disk_error(exc, path) from exc
    free = usage.f_bavail * usage.f_frsize
    if free < min_bytes:
        raise MirrorError(f"only {free >> 20} MB are free at {path}", "make room, or lower min_free_bytes")
    if usage.f_files and usage.f_favail < min_inodes:
        raise MirrorError(f"only {usage.f_favail} inodes are free at {path}", "make room, or lower min_free_inodes")


def disk_error(exc: OSError, path: Path) -> MirrorError:
    """Return the error to raise for an error of the file system."""
    where = exc.filename or path
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return MirrorError(f"no space left for {where}", "make room (bytes or inodes); the mirror is as it was")
    return MirrorError(f"cannot use {where}: {exc.strerror}", "check its owner and mode")
