"""Certificates that are renewed while a broker and its clients live on."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.chaos.targets import Target


class Files:
    """A client's three files, copies of what the broker's authority made for it.

    Args:
        target: a real broker that asks for client certificates.
        directory: where the files are.
    """

    def __init__(self, target: Target, directory: Path) -> None:
        assert target.server is not None
        self._server = target.server
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "client.pem", "client-key.pem"))
        self.renew_clients()

    def renew_broker(self) -> None:
        """Give the broker another authority; to be seen at its next start."""
        self._server.renew_certificates()

    def renew_clients(self) -> None:
        """Put the present authority and client certificate where the clients have theirs, each in one step."""
        identity = self._server.client_identity
        assert identity is not None
        for source, target in (
            (identity.key_file, self.key),
            (identity.cert_file, self.certificate),
            (self._server.ca_file, self.ca),
        ):
            new = target.with_suffix(".new")
            shutil.copy(source, new)
            new.replace(target)
