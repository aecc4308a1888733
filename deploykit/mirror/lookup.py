"""Ask an origin what a name stands for, without a mirror."""

from __future__ import annotations

from deploykit.errors import RefNotFound
from deploykit.mirror.remote import converse, shown_url
from deploykit.names import ObjectId, RefName, parse_object_id, parse_ref_name
from deploykit.settings import MirrorSettings


def look_up(url: str, name: str, settings: MirrorSettings | None = None) -> tuple[RefName, ObjectId]:
    """Return the full ref and the commit that a tag, a branch or a full ref stands for at the origin now.

    An annotated tag is peeled to what it tags. A tag goes before a branch of the same name.

    Raises:
        RefNotFound: the origin has no such ref.
        OriginError: it cannot be reached.
        UsageError: the address is not allowed.
    """
    candidates = [name] if name.startswith("refs/") else [f"refs/tags/{name}", f"refs/heads/{name}"]
    wanted = [parse_ref_name(candidate) for candidate in candidates]
    refs, _ = converse(url, lambda _: ([], ()), lambda _: 0, prefixes=[ref.encode() for ref in wanted])
    for ref in wanted:
        found = refs.get(ref.encode() + b"^{}") or refs.get(ref.encode())
        if found:
            return ref, parse_object_id(found.decode())
    raise RefNotFound(f"{shown_url(url)} has no tag or branch {name!a}", "push it first, or check the name")
