"""Resolve a name at an origin, without a mirror."""

from __future__ import annotations

from deploykit.errors import RefNotFound
from deploykit.git.transport.address import parse_origin_url
from deploykit.git.transport.protocol import OriginSession
from deploykit.git.transport.remote import open_link
from deploykit.names import ObjectId, RefName, parse_object_id, parse_ref_name
from deploykit.settings.mirror import MirrorSettings
from deploykit.system.deadline import Deadline


def resolve_at_origin(url: str, name: str, settings: MirrorSettings | None = None) -> tuple[RefName, ObjectId]:
    """Return the full ref and the commit that a tag, a branch or a full ref stands for at the origin now.

    An annotated tag is peeled to what it tags. A tag goes before a branch of the same name.

    Raises:
        RefNotFound: the origin has no such ref.
        OriginError: it cannot be reached.
        UsageError: the address is not allowed.
    """
    settings = settings or MirrorSettings()
    candidates = [name] if name.startswith("refs/") else [f"refs/tags/{name}", f"refs/heads/{name}"]
    wanted = [parse_ref_name(candidate) for candidate in candidates]
    address = parse_origin_url(url, allow_http=settings.allow_http)
    limit = Deadline(settings.deadline, stall=settings.stall_timeout, what=f"listing {address.shown}")
    session = OriginSession(open_link(address, settings, limit), prefixes=wanted, peel=True)
    try:
        listing = session.list()
    finally:
        session.close()
    refs = dict(listing.refs)
    for ref in wanted:
        found = listing.peeled.get(ref) or refs.get(ref)
        if found:
            return ref, parse_object_id(found)
    raise RefNotFound(f"{address.shown} has no tag or branch {name!a}", "push it first, or check the name")
