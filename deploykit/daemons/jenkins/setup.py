"""What the build daemon is made of: names, files, clients and secrets, as the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploykit.daemons.jenkins.ports import BuildServer
from deploykit.daemons.jenkins.servers import open_server
from deploykit.daemons.service.durable import named_subscriptions
from deploykit.errors import SettingsError
from deploykit.messages import RefUpdated, RevisionCommitted
from deploykit.messages.topics import topics_of_class
from deploykit.settings.jenkins import JenkinsSettings
from deploykit.settings.node import Settings
from deploykit.system.lock import FileLock
from deploykit.system.secretfile import read_secret_text


def subscriptions_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each subscription: pushes that came while the daemon was down still build."""
    topics = (*topics_of_class(RefUpdated, settings.topics), *topics_of_class(RevisionCommitted, settings.topics))
    return named_subscriptions(topics, f"deploykit-{settings.node}-jenkins")


def queue_path(state: Path) -> Path:
    """Return the file of the builds to ask for."""
    return state / "jenkins.sqlite"


def queue_lock(state: Path) -> FileLock:
    """Return the lock that keeps a second daemon off the same queue."""
    state.mkdir(parents=True, exist_ok=True)
    return FileLock(
        state / "jenkins.lock",
        busy=f"another build daemon works on state directory {state}",
        remedy="stop that one: two of them would ask for every build twice",
        mode=0o644,
    )


def check_secrets(settings: JenkinsSettings) -> None:
    """Read every file with a secret once: what is wrong with one is known at the start, and not at the first push.

    Raises:
        SettingsError: with everything that is wrong.
    """
    files = [
        (f"jenkins.servers.{name}.{setting}", path)
        for name, server in settings.servers.items()
        for setting, path in server.secret_files().items()
    ]
    files += [
        (f"jenkins.jobs[{at}].token_file", job.token_file) for at, job in enumerate(settings.jobs) if job.token_file
    ]
    problems = []
    for setting, path in files:
        try:
            read_secret_text(path, setting)
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        first = problems[0] if len(problems) == 1 else f"{len(problems)} files with secrets cannot be used"
        raise SettingsError(first, problems=tuple(problems))


def make_servers(settings: Settings) -> Mapping[str, BuildServer]:
    """Return a client for each build server in the settings."""
    return {name: open_server(name, server) for name, server in settings.jenkins.servers.items()}


__all__ = ["check_secrets", "make_servers", "queue_lock", "queue_path", "subscriptions_of"]
