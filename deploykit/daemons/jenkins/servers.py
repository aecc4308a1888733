"""A build server's settings -> the client for its kind."""

from __future__ import annotations

from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.daemons.jenkins.http_kind import HttpBuildServer
from deploykit.daemons.jenkins.ports import BuildServer
from deploykit.settings.buildservers import BuildServerSettings


def open_server(name: str, settings: BuildServerSettings) -> BuildServer:
    """Return the client of a build server. Nothing is sent yet.

    Args:
        name: of the server in the settings.
        settings: `settings.problems()` is empty.
    """
    return HttpBuildServer(name, settings) if settings.kind == "http" else JenkinsServer(name, settings)


__all__ = ["open_server"]
