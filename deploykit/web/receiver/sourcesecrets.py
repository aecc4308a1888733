"""The secrets of one source, read from their files, and read again when a file changes.

Rules:

* A file that others may read, or that is empty, is refused at the start.
* A file that cannot be used later changes nothing: what was read before counts on, and the log says why. It is tried
  again with each request, for the reason may lie elsewhere: too many open files, a network that is away.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from deploykit.errors import SettingsError
from deploykit.settings.webhook import WebhookSourceSettings
from deploykit.settings.webhooksecrets import check_secret
from deploykit.system.secretfile import read_secret
from deploykit.web.receiver.signatures import WebhookSecret

_log = logging.getLogger(__name__)


class SourceSecrets:
    """The secrets of one source. Use it from any thread.

    Args:
        name: of the source.
        source: its settings.

    Raises:
        SettingsError: a file cannot be used.
    """

    def __init__(self, name: str, source: WebhookSourceSettings) -> None:
        self._name = name
        self._source = source
        self._lock = threading.Lock()
        self._marks = self._look()
        self._secrets = self._read()
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the files cannot be read now, while what was read before counts; empty if they can."""
        return self._problem

    def current(self) -> tuple[WebhookSecret, ...]:
        """Return the secrets that count now. It costs a stat(2) for each file."""
        with self._lock:
            marks = self._look()
            if marks != self._marks or self._problem:
                self._marks = marks
                try:
                    self._secrets = self._read()
                except SettingsError as error:
                    before, self._problem = self._problem, f"{error} (what was read before still counts)"
                    if self._problem != before:
                        _log.error("%s", self._problem)
                else:
                    self._problem = ""
                    _log.info("source %s: secrets read again", self._name)
            return self._secrets

    def _read(self) -> tuple[WebhookSecret, ...]:
        return read_secrets(self._name, self._source)

    def _look(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_mark(path) for path in self._source.secret_files)


def read_secrets(name: str, source: WebhookSourceSettings) -> tuple[WebhookSecret, ...]:
    """Return the secrets of a source.

    Raises:
        SettingsError: a file cannot be used; the text names it.
    """
    found = []
    for at, path in enumerate(source.secret_files):
        setting = f"webhook.sources.{name}.secret_files[{at}]"
        text = read_secret(path, setting)
        try:
            check_secret(text, source)
        except SettingsError as error:
            raise SettingsError(f"{setting}: {path}: {error.problem}", error.remedy) from None
        found.append(WebhookSecret.of(text))
    return tuple(found)


def _mark(path: Path) -> tuple[int, ...]:
    """Return what differs once a file was written or replaced, or its mode changed."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or -1,)
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode)


__all__ = ["SourceSecrets", "read_secrets"]
