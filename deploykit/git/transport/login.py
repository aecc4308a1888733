"""The login for an origin: from a file of credentials, or from a program.

Rules: a line of the file counts for the scheme, host and port that stand in it; the program is asked for those of the
address. Nothing is sent anywhere else.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deploykit.errors import SettingsError
from deploykit.git.transport.address import OriginUrl
from deploykit.settings.mirror import MirrorSettings

RunHelper = Callable[[Sequence[str], str, float], str]


def login_for(base: OriginUrl, settings: MirrorSettings, run_helper: RunHelper, seconds: float) -> str:
    """Return the Authorization header for an address; empty where the settings have none for it.

    Args:
        run_helper: asks a credential helper, within so many seconds.

    Raises:
        SettingsError: the file of credentials cannot be used.
        OriginError: the helper fails.
    """
    found = _from_file(base, settings) or _from_helper(base, settings, run_helper, seconds)
    return f"Basic {base64.b64encode(found.encode()).decode()}" if found else ""


def _from_helper(base: OriginUrl, settings: MirrorSettings, run_helper: RunHelper, seconds: float) -> str:
    if not settings.credential_helper:
        return ""
    host = f"{base.host}:{base.port}" if base.port else base.host
    question = f"protocol={base.scheme}\nhost={host}\n"
    question += f"username={base.user}\n\n" if base.user else "\n"
    answer = run_helper(settings.credential_helper, question, min(30.0, seconds))
    found = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    return f"{found['username']}:{found['password']}" if {"username", "password"} <= found.keys() else ""


def read_credentials(path: Path) -> list[str]:
    """Return the lines of a credentials file.

    Raises:
        SettingsError: it cannot be read, or others can.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = file.read(1 << 20).decode("utf-8", "replace").splitlines()
    except OSError as exc:
        raise SettingsError(f"cannot read credentials_file {path}: {exc.strerror}") from exc
    if mode & 0o037:
        raise SettingsError(f"credentials_file {path} has mode {mode:04o}", "chmod 0600 it")
    return lines


def _from_file(base: OriginUrl, settings: MirrorSettings) -> str:
    if settings.credentials_file is None:
        return ""
    for line in read_credentials(settings.credentials_file):
        try:
            parts = urlsplit(line.strip())
            same = (parts.scheme, parts.hostname, parts.port) == (base.scheme, base.host.lower(), base.port)
        except ValueError:
            continue
        path = parts.path.strip("/")
        if not same or parts.username is None or (base.user and unquote(parts.username) != base.user):
            continue
        if path and path != base.path.strip("/"):
            continue
        return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return ""
