"""Put a draft on the disk: the settings, those of the hooks, and a file for each secret.

Rules:

* All have mode 0600, but for the hooks' settings: everybody who pushes reads these, and no secret is in them.
* Nothing that is there already is written over, unless the caller says so; then each file is replaced as a whole,
  and nothing but a file is.
* Secrets first: settings that name a file which is not there would not be accepted.
* Where one file cannot be written, those that were made before it are removed again.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from deploykit.config.load import parse_settings
from deploykit.config.migrate.model import HOOKS_FILE, MigrationDraft
from deploykit.config.migrate.render import render, render_hooks
from deploykit.errors import SettingsError, UsageError
from deploykit.system.durable import sync_directory, write_all


def write_draft(draft: MigrationDraft, sources: Sequence[Path], path: Path, *, force: bool = False) -> list[Path]:
    """Write a draft to files, and return which.

    Args:
        draft: what to write.
        sources: the old files, for the line at the top.
        path: the settings file; the others are beside it.
        force: write over what is there.

    Raises:
        UsageError: one of them is there already, or cannot be written, or two would be one; then none is.
    """
    directory = Path(os.path.abspath(path)).parent  # noqa: PTH100 -- resolve() would follow a symlink to the file
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}", "make it, mode 0700")
    if path.name == HOOKS_FILE or path.name in {str(draft.values[place]) for place in draft.secrets}:
        raise UsageError(f"{path.name} is the name of another file of the result", "call it deploykit.toml")
    contents = {directory / str(draft.values[place]): secret for place, secret in draft.secrets.items()}
    if hooks := render_hooks(draft, sources):
        contents[directory / HOOKS_FILE] = hooks
    contents[directory / path.name] = render(draft, sources, directory=directory, private=True)
    there = [file for file in contents if os.path.lexists(file)]
    if there and not force:
        names = ", ".join(map(str, there[:5])) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise UsageError(f"there already: {names}", "write to another directory, or write over it with --force")
    for file in there:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise UsageError(f"{file} is no file", "only files are written over, and no symlink: take it away")
    made: list[Path] = []
    try:
        for file, content in contents.items():
            _write(file, content.encode(), force=force, mode=0o644 if file.name == HOOKS_FILE else 0o600)
            made.append(file)
        sync_directory(directory)
    except OSError as error:
        if not force:
            for file in made:
                file.unlink(missing_ok=True)
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from error
    return [*contents]


def acceptance_problems(draft: MigrationDraft) -> tuple[str, ...]:
    """Return why the settings would not be accepted; empty where they are. Files that they name are not looked at."""
    # Passcodes are read with the settings, and their files are not there yet.
    without = {place: value for place, value in draft.values.items() if place[-1] != "passcode_file"}
    rest = MigrationDraft(values=without, secrets={p: s for p, s in draft.secrets.items() if p in without})
    text = render(rest, private=True)
    try:
        parse_settings(text.encode(), where="what came out")
    except SettingsError as error:
        return error.problems
    return ()


def _write(path: Path, content: bytes, *, force: bool, mode: int) -> None:
    """Write one file whole."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb"):
            os.fchmod(fd, mode)
            write_all(fd, content)
            os.fsync(fd)
        if force:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails where somebody made it since
    finally:
        temporary.unlink(missing_ok=True)


__all__ = ["acceptance_problems", "write_draft"]
