"""All that one node said of itself, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.messages import NodeDescribed, SiteState


def print_described(described: NodeDescribed) -> None:
    """Print a line for each thing that a node said of itself."""
    for kind, text in _lines(described):
        click.echo(f"  {kind:<8} {visible(text)}")


def _lines(described: NodeDescribed) -> Iterator[tuple[str, str]]:
    from deploykit.cli.options import to_json
    from deploykit.fleet.lockview import summary_of
    from deploykit.messages.site import named

    yield "agent", f"{described.instance} on {described.host}, deploykit {described.version}"
    for twin in described.twins:
        yield "twin", str(twin)
    for name in described.classes:
        yield "class", name
    for name, value in described.facts.items():
        yield "fact", f"{name} = {value if isinstance(value, str) else to_json(value)}"
    for site in described.sites:
        yield "site", f"{site.site} {_live(site)}"
        for part in site.parts:
            yield "part", f"{site.site} {part.repo} {named(part.ref, part.commit)}"
        if site.previous is not None:
            yield "previous", f"{site.site} {site.previous}"
        if site.prepared is not None:
            yield "prepared", f"{site.site} {site.prepared}"
        if site.lock is not None:
            yield "lock", summary_of(site.lock)
    for held in described.refs:
        yield "ref", f"{held.repo} {named(held.ref, held.commit)}"
    for cut in described.cut:
        yield "left out", cut


def _live(site: SiteState) -> str:
    from deploykit.messages.site import named
    from deploykit.operations.times import shown_time

    if site.problem:
        return site.problem
    since = f" since {shown_time(site.since)}" if site.since is not None else ""
    return f"{named(site.ref, site.commit, site.release, parts=site.parts) or 'empty'}{since if site.release else ''}"
