"""What a deploy command needs before it can be sent: a key, whom to believe, a broker, and the commit of a name."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from deploykit.bus import Bus
from deploykit.bus.events import ConnectFailed, Event
from deploykit.errors import ConnectError, PolicyRefused, UsageError
from deploykit.git.transport.lookup import look_up as origin_look_up
from deploykit.messages import DeployPhase, DeployRequested, utc_now
from deploykit.names import (
    ObjectId,
    RefName,
    RepoName,
    parse_node_name,
    parse_object_id,
    parse_ref_name,
    parse_repo_name,
    parse_site_name,
)
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_signing_key, load_trusted
from deploykit.trust.signature import SigningKey


def signing_key(settings: Settings, path: Path | None) -> SigningKey:
    """Read the key that signs commands: `path`, or the settings'.

    Raises:
        PolicyRefused: there is none; an unsigned command is never sent.
        KeyFileError: it cannot be used.
    """
    chosen = path or settings.signing_key
    if chosen is None:
        raise PolicyRefused("an unsigned deploy is refused", "give --key, or set signing_key; see `deploykit keys`")
    return load_signing_key(chosen)


def report_trust(settings: Settings) -> Trust:
    """Read whose reports to believe: the allowed signers as they are now, and the policy.

    Raises:
        PolicyRefused: the settings name no allowed_signers, so that no report could be believed.
        KeyFileError: they cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise PolicyRefused("no node's report could be believed", "set trust.allowed_signers")
    trusted = load_trusted(settings.trust)
    return Trust.from_settings(settings.trust, settings.node, trusted=lambda: trusted)


@contextmanager
def bus_of(settings: Settings) -> Iterator[Bus]:
    """Yield a bus that is connected.

    Raises:
        LoginRefused: no broker accepts the credentials.
        ConnectError: none can be reached within `broker.connect_timeout`; the text says why.
    """
    why = ["no answer"]

    def note(event: Event) -> None:
        if isinstance(event, ConnectFailed):
            why.append(event.problem)

    with Bus(settings.broker, on_event=note) as bus:
        if not bus.wait_connected(settings.broker.connect_timeout):
            raise ConnectError(f"no broker reachable: {why[-1]}")
        yield bus


def look_up(
    settings: Settings, site: str, name: str, *, commit: str | None, repo: str | None
) -> tuple[RefName, ObjectId]:
    """Return the full ref and the commit to ask for: as given, or as the site's origin shows them now.

    Raises:
        UsageError: the settings do not name the repository of the site.
        RefNotFound: the origin has no such ref.
    """
    if commit is not None and name.startswith("refs/"):
        return parse_ref_name(name), parse_object_id(commit)
    origin = settings.repositories[_repository_of(settings, site, repo)]
    ref, found = origin_look_up(origin.url, name, origin.mirror)
    if commit is not None and parse_object_id(commit) != found:
        raise PolicyRefused(f"{name} is {found} at the origin, not {commit}", "leave --commit out, or fetch and look")
    return ref, found


def _repository_of(settings: Settings, site: str, repo: str | None) -> RepoName:
    known = settings.repositories
    if repo is not None:
        name = parse_repo_name(repo)
    elif (chosen := settings.sites.get(parse_site_name(site))) is not None:
        name = chosen.repo
    elif len(known) == 1:
        name = next(iter(known))
    else:
        raise UsageError(f"which repository is site {site} made from?", "give --repo, or a full ref and --commit")
    if name not in known:
        raise UsageError(f"repository {name} is not in the settings", f"known: {', '.join(known) or 'none'}")
    return name


def request_for(
    site: str,
    ref: RefName,
    commit: ObjectId,
    *,
    nodes: Sequence[str],
    expires_in: timedelta,
    phase: DeployPhase = "deploy",
) -> DeployRequested:
    """Make the command, in the name of the user who runs this."""
    now = utc_now()
    return DeployRequested(
        source=f"operator/{socket.gethostname()}",
        time=now,
        site=parse_site_name(site),
        ref=ref,
        commit=commit,
        audience=tuple(parse_node_name(node) for node in nodes),
        expires=now + expires_in,
        phase=phase,
        requested_by=_user(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
