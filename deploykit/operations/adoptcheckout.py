"""Find the checkout that a directory is to be, by the settings of this node, and open its mirror."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from deploykit.checkouts import Checkouts, CheckoutSource
from deploykit.checkouts.adopting import CheckoutAdopter
from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.daemons.agent.submodules import with_submodules
from deploykit.errors import PreflightRefused, UsageError
from deploykit.mirror import Mirror
from deploykit.names import RepoName
from deploykit.settings.node import Settings


@contextlib.contextmanager
def open_adoption(settings: Settings, place: Path) -> Iterator[tuple[CheckoutAdopter, CheckoutSource]]:
    """Yield who adopts a directory as a checkout, and what it is made from.

    Args:
        place: as readers name it.

    Raises:
        UsageError: no repository of the settings has a checkout there.
        PreflightRefused: its mirror is not there yet.
        MirrorError: a mirror cannot be read.
    """
    absent: list[RepoName] = []
    for repo, checkouts, directory in _candidates(settings, place):
        if not (mirror_path(settings, repo) / "HEAD").exists():
            absent.append(repo)
            continue
        with contextlib.ExitStack() as stack:
            source = _source(settings, repo, checkouts, stack)
            plan = checkouts.planned(source)
            refused = {checkouts.rule.directory_of(ref) for ref in source.refs if ref in plan.refused}
            if directory in {*plan.directories, *refused}:
                yield CheckoutAdopter(checkouts, directory), source
                return
    if absent:
        raise PreflightRefused(
            f"the mirror of {', '.join(sorted(absent))} is not there yet",
            "let the agent fetch it: deploykit agent --once",
        )
    raise _no_checkout(place)


def adopted_at(settings: Settings, place: Path) -> CheckoutAdopter:
    """Return who adopted a directory as a checkout, whether or not there are still a mirror and a ref for it.

    Raises:
        UsageError: no repository of the settings has a checkout there.
        PreflightRefused: nothing was adopted there.
    """
    adopters = [CheckoutAdopter(checkouts, directory) for _, checkouts, directory in _candidates(settings, place)]
    if not adopters:
        raise _no_checkout(place)
    for adopter in adopters:
        if adopter.is_known:
            return adopter
    raise PreflightRefused(f"{place} was not adopted", "check the path")


def _no_checkout(place: Path) -> UsageError:
    return UsageError(f"no repository of the settings has a checkout at {place}", "give its path, and see --config")


def _candidates(settings: Settings, place: Path) -> Iterator[tuple[RepoName, Checkouts, str]]:
    """Yield the checkouts below whose root a directory is, each with its path there."""
    absolute = Path(os.path.abspath(place))  # noqa: PTH100 -- resolve() would walk through it
    real = Path(os.path.realpath(absolute.parent)) / absolute.name
    for repo, chosen in settings.repositories.items():
        for each in chosen.checkouts:
            checkouts = Checkouts(each)
            root = Path(os.path.realpath(checkouts.rule.root))
            if checkouts.rule.patterns and real != root and real.is_relative_to(root):
                yield repo, checkouts, real.relative_to(root).as_posix()


def _source(settings: Settings, repo: RepoName, checkouts: Checkouts, stack: contextlib.ExitStack) -> CheckoutSource:
    """Open a repository's mirror, with those of its submodules where the checkouts have them."""

    opened: dict[RepoName, Mirror] = {}

    def open_once(name: RepoName) -> Mirror:
        if name not in opened:
            chosen = settings.repositories[name]
            opened[name] = stack.enter_context(Mirror.open(mirror_path(settings, name), chosen.url, chosen.mirror))
        return opened[name]

    mirror = open_once(repo)
    if checkouts.settings.submodules != "mirror":
        return mirror
    return with_submodules(mirror, settings, checkouts.settings.submodule_depth, open_once)
