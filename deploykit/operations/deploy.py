"""What every command to nodes needs: the key that signs, whose reports count, the commit a name stands for, a bus."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from deploykit.bus import Bus
from deploykit.bus.events import ConnectFailed, Event
from deploykit.errors import ConnectError, PolicyRefused, UsageError
from deploykit.git.transport.lookup import resolve_at_origin
from deploykit.names import (
    ObjectId,
    RefName,
    RepoName,
    parse_object_id,
    parse_ref_name,
    parse_repo_name,
    parse_site_name,
)
from deploykit.operations.keychoice import KeyChoice, KeyGiven
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_trusted
from deploykit.trust.signature import BodySigner


def signing_key(settings: Settings, key: KeyGiven) -> BodySigner:
    """Return the key that signs commands: the one that is given, or the settings'.

    Raises:
        PolicyRefused: there is none; an unsigned command is never sent.
        KeyFileError: it cannot be used.
    """
    return (key if isinstance(key, KeyChoice) else KeyChoice(key)).load(settings)


def load_report_trust(settings: Settings) -> Trust:
    """Return whose reports are believed: the allowed signers as they are now, and the policy.

    Raises:
        PolicyRefused: the settings name no allowed_signers, so that no report could be believed.
        KeyFileError: they cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise PolicyRefused("no node's report could be believed", "set trust.allowed_signers")
    trusted = load_trusted(settings.trust)
    return Trust.from_settings(settings.trust, settings.node, trusted=lambda: trusted, repos=None)


@contextmanager
def connected_bus(settings: Settings) -> Iterator[Bus]:
    """Yield a bus that is connected.

    Raises:
        LoginRefused: every broker refused the login.
        ConnectError: no broker can be reached within `broker.connect_timeout`; the text says why.
    """
    problems = ["no answer"]

    def note(event: Event) -> None:
        if isinstance(event, ConnectFailed):
            problems.append(event.problem)

    with Bus(settings.broker.at_once(), on_event=note) as bus:
        if not bus.wait_connected(settings.broker.connect_timeout):
            raise ConnectError(f"no broker reachable: {problems[-1]}")
        yield bus


def resolve_ref(
    settings: Settings, site: str, name: str, *, commit: str | None, repo: str | None
) -> tuple[RefName, ObjectId]:
    """Return the full ref and the commit to ask for: as given, or as the site's origin shows them now.

    Raises:
        PolicyRefused: the ref does not stand for `commit` at the origin.
        UsageError: the settings do not show which repository the site is made from.
        RefNotFound: the origin has no such ref.
    """
    if commit is not None and name.startswith("refs/"):
        return parse_ref_name(name), parse_object_id(commit)
    origin = settings.repositories[_repository_of(settings, site, repo)]
    ref, found = resolve_at_origin(origin.url, name, origin.mirror)
    if commit is not None and parse_object_id(commit) != found:
        raise PolicyRefused(f"{name} is {found} at the origin, not {commit}", "leave --commit out, or fetch and look")
    return ref, found


def known_repository(settings: Settings, site: str, repo: str | None) -> RepoName | None:
    """Return the repository that a site is made from; None where neither the caller nor the settings name it."""
    if repo is not None:
        return parse_repo_name(repo)
    chosen = settings.sites.get(parse_site_name(site))
    return chosen.repo if chosen is not None else None


def _repository_of(settings: Settings, site: str, repo: str | None) -> RepoName:
    known = settings.repositories
    if repo is not None:
        name = parse_repo_name(repo)
    elif (chosen := settings.sites.get(parse_site_name(site))) is not None and chosen.repo is not None:
        name = chosen.repo
    elif len(known) == 1:
        name = next(iter(known))
    else:
        raise UsageError(f"which repository is site {site} made from?", "give --repo, or a full ref and --commit")
    if name not in known:
        raise UsageError(f"repository {name} is not in the settings", f"known: {', '.join(known) or 'none'}")
    return name


def user_name() -> str:
    """Return who runs this process, in words for a person."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
