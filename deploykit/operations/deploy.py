"""Ask one node to deploy: the key that signs, whose reports count, the commit a name stands for, the signed command."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import attrs

from deploykit.bus import Bus
from deploykit.bus.events import ConnectFailed, Event
from deploykit.errors import ConnectError, PolicyRefused, UsageError
from deploykit.fleet import Answer, Coordinator
from deploykit.git.transport.lookup import resolve_at_origin
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
from deploykit.operations.builds import evidence_for
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_signing_key, load_trusted
from deploykit.trust.signature import SigningKey


@attrs.frozen(kw_only=True, slots=True)
class DeployCommand:
    """A deploy command for one node, what is needed to send it and to judge the answer, and notes for who asks."""

    settings: Settings
    request: DeployRequested
    key: SigningKey
    trust: Trust
    notes: tuple[str, ...] = ()

    def ask(self, bus: Bus, *, timeout: float) -> Answer:
        """Send the command and wait for the node's report.

        Args:
            bus: connected.
            timeout: seconds to wait.
        """
        coordinator = Coordinator(bus, self.settings.topics, self.key, self.trust)
        (answer,) = coordinator.ask(self.request, timeout=timeout)
        return answer


def prepare(
    settings: Settings,
    site: str,
    ref: str,
    *,
    node: str,
    timeout: float,
    commit: str | None = None,
    repo: str | None = None,
    key: Path | None = None,
    evidence: Sequence[Path] = (),
    without_build: bool = False,
) -> DeployCommand:
    """Return the command that puts a ref of a site live on a node. Nothing is sent; the origin may be contacted.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        ref: a tag or branch, short or in full.
        node: the node that is to deploy.
        timeout: seconds that the report is waited for; the command expires then, or as late as nodes accept.
        commit: what the ref must stand for; looked up at the origin when None.
        repo: where to look it up; found by the site when None.
        key: signs the command; the settings' key when None.
        evidence: files of build results to send along with those that are known here.
        without_build: ask the node to deploy although no build succeeded.

    Raises:
        PolicyRefused: there is no key, no report could be believed, or the ref stands for another commit.
        KeyFileError: a key file cannot be used.
        UsageError: the settings do not show which repository the site is made from.
        RefNotFound: the origin has no such ref.
    """
    signer = signing_key(settings, key)
    trust = load_report_trust(settings)
    full_ref, object_id = resolve_ref(settings, site, ref, commit=commit, repo=repo)
    expires_in = timedelta(seconds=min(timeout, settings.trust.max_expiry))
    request = new_request(site, full_ref, object_id, nodes=[node], expires_in=expires_in)
    made_from = known_repository(settings, site, repo)
    results, notes = evidence_for(settings, request.site, made_from, object_id, evidence)
    request = attrs.evolve(request, evidence=results, without_build=without_build)
    return DeployCommand(settings=settings, request=request, key=signer, trust=trust, notes=notes)


def exit_code(answer: Answer) -> int:
    """Return 0 where the node reports success, 3 where it refused, 1 where it failed or did not answer."""
    return 1 if answer.report is None else {"success": 0, "refused": 3}.get(answer.report.outcome, 1)


def signing_key(settings: Settings, path: Path | None) -> SigningKey:
    """Return the key that signs commands: the one at `path`, or the settings'.

    Raises:
        PolicyRefused: there is none; an unsigned command is never sent.
        KeyFileError: it cannot be used.
    """
    chosen = path or settings.signing_key
    if chosen is None:
        raise PolicyRefused("an unsigned deploy is refused", "give --key, or set signing_key; see `deploykit keys`")
    return load_signing_key(chosen)


def load_report_trust(settings: Settings) -> Trust:
    """Return whose reports are believed: the allowed signers as they are now, and the policy.

    Raises:
        PolicyRefused: the settings name no allowed_signers, so that no report could be believed.
        KeyFileError: they cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise PolicyRefused("no node's report could be believed", "set trust.allowed_signers")
    trusted = load_trusted(settings.trust)
    return Trust.from_settings(settings.trust, settings.node, trusted=lambda: trusted)


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
    elif (chosen := settings.sites.get(parse_site_name(site))) is not None:
        name = chosen.repo
    elif len(known) == 1:
        name = next(iter(known))
    else:
        raise UsageError(f"which repository is site {site} made from?", "give --repo, or a full ref and --commit")
    if name not in known:
        raise UsageError(f"repository {name} is not in the settings", f"known: {', '.join(known) or 'none'}")
    return name


def new_request(
    site: str,
    ref: RefName,
    commit: ObjectId,
    *,
    nodes: Sequence[str],
    expires_in: timedelta,
    phase: DeployPhase = "deploy",
) -> DeployRequested:
    """Return the command, in the name of the user that runs this process."""
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
        requested_by=user_name(),
    )


def user_name() -> str:
    """Return who runs this process, in words for a person."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
