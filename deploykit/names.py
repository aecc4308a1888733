"""Names that come from outside: parsed once here, trusted by their type after.

Rules:

* Every name is bounded, printable and free of control characters before it gets its type.
* A ref that git allows is not always safe as a directory name: `path_component` maps any text to one, injectively.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NewType

from deploykit.errors import InvalidName

RepoName = NewType("RepoName", str)
RefName = NewType("RefName", str)
ObjectId = NewType("ObjectId", str)
NodeName = NewType("NodeName", str)
SiteName = NewType("SiteName", str)

#: "No object": the old id of a created ref, the new id of a deleted one.
ZERO_ID: Final = ObjectId("0" * 40)
ZERO_ID_SHA256: Final = ObjectId("0" * 64)
_ZEROS: Final = frozenset({ZERO_ID, ZERO_ID_SHA256})

# Public, because the JSON Schemas say the same.
MAX_NAME: Final = 255
MAX_REF: Final = 1024
OBJECT_ID_PATTERN: Final = "(?:[0-9a-f]{40}|[0-9a-f]{64})"
REPO_PATTERN: Final = "[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*"
NODE_PATTERN: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"

_REPO = re.compile(rf"{REPO_PATTERN}\Z").match
_NODE = re.compile(rf"{NODE_PATTERN}\Z").match
# git check-ref-format(1), all rules but the one on slashes, as one search: any hit is a refusal.
_REF_REFUSED = re.compile(r"\.\.|@\{|//|[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|/\.|\.lock(?:/|\Z)|[./]\Z").search


def _shown(text: object) -> str:
    """Return the offending text for an error line, escaped and short."""
    return ascii(text) if len(str(text)) <= 80 else ascii(str(text)[:77]) + "..."


_OBJECT_ID = re.compile(rf"{OBJECT_ID_PATTERN}\Z").match
_ID_LENGTHS: Final = frozenset({40, 64})


def parse_object_id(text: object) -> ObjectId:
    """Return 40 (SHA-1) or 64 (SHA-256) lower-case hex digits as an object id.

    Raises:
        InvalidName: anything else.
    """
    if not isinstance(text, str) or not _OBJECT_ID(text):
        raise InvalidName(f"not an object id: {_shown(text)}", "expected 40 or 64 lower-case hex digits")
    return ObjectId(text)


def all_object_ids(many: Sequence[str]) -> bool:
    """Return whether all are object ids; for long lists, where one check of all is cheaper than one of each.

    Raises:
        TypeError: one of them is not text.
    """
    other = "".join(many).encode("utf-8", "replace").translate(None, b"0123456789abcdef")
    return not other and _ID_LENGTHS.issuperset(map(len, many))


def is_zero(oid: ObjectId) -> bool:
    """Return whether `oid` is all zeros: "no object"."""
    return oid in _ZEROS


def parse_ref_name(text: object) -> RefName:
    """Return a full ref name (`refs/heads/main`): below `refs/`, at most 1024 characters, and acceptable to git.

    Such a name is not safe as a directory (`refs/heads/-x`, `refs/heads/a%2Fb`): see `path_component`.

    Raises:
        InvalidName: not below `refs/`, or git would refuse it.
    """
    if not isinstance(text, str) or not text.startswith("refs/"):
        raise InvalidName(f"not a full ref name: {_shown(text)}", "expected refs/heads/NAME or refs/tags/NAME")
    if len(text) > MAX_REF or _REF_REFUSED(text):
        raise InvalidName(f"not an acceptable ref name: {_shown(text)}", "see git check-ref-format(1)")
    return RefName(text)


def short_ref(ref: RefName) -> str:
    """Return a ref name without `refs/heads/` or `refs/tags/`.

    >>> short_ref(RefName("refs/heads/topic/x"))
    'topic/x'
    """
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            return ref[len(prefix) :]
    return str(ref)


def parse_repo_name(text: object) -> RepoName:
    """Return a repository name, `name` or `group/name`: letters, digits, `_ . + -`, no leading dot or dash in a part.

    Raises:
        InvalidName: absolute, empty, too long, or a part is not acceptable.
    """
    if not isinstance(text, str) or len(text) > MAX_NAME or not _REPO(text):
        raise InvalidName(f"not a repository name: {_shown(text)}", "letters, digits, _ . + - and / between parts")
    return RepoName(text)


def parse_node_name(text: object) -> NodeName:
    """Return a node's name: letters, digits, `_ . -`.

    Raises:
        InvalidName: anything else.
    """
    if not isinstance(text, str) or len(text) > MAX_NAME or not _NODE(text):
        raise InvalidName(f"not a node name: {_shown(text)}", "letters, digits, _ . - only")
    return NodeName(text)


def parse_site_name(text: object) -> SiteName:
    """Return a site's name: letters, digits, `_ . -`.

    Raises:
        InvalidName: anything else.
    """
    if not isinstance(text, str) or len(text) > MAX_NAME or not _NODE(text):
        raise InvalidName(f"not a site name: {_shown(text)}", "letters, digits, _ . - only")
    return SiteName(text)


_COMPONENT_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-@")
#: File systems allow 255 bytes; a suffix or a temporary name made of a component needs room, too.
_MAX_COMPONENT = 200


def path_component(text: str) -> str:
    """Return a safe directory name for any text, injectively: two texts never share a name.

    Every byte of its UTF-8 outside `A-Za-z0-9._+-@` becomes `%XX`, and so does a leading `.` or `-`; nothing becomes
    `%`. A name that would be longer than 200 bytes ends in `~` and a SHA-256 of the text instead. The result is ASCII,
    and neither hidden, an option, `.`, `..`, nor more than one component.

    >>> path_component("topic/x"), path_component("topic_x"), path_component("..")
    ('topic%2Fx', 'topic_x', '%2E.')
    """
    raw = text.encode("utf-8", "surrogatepass")
    out = "".join(chr(b) if b in _COMPONENT_SAFE else f"%{b:02X}" for b in raw) or "%"
    if out[0] in ".-":
        out = f"%{ord(out[0]):02X}{out[1:]}"
    if len(out) > _MAX_COMPONENT:
        import hashlib  # a push does not need it

        digest = hashlib.sha256(raw).hexdigest()
        out = f"{out[: _MAX_COMPONENT - 1 - len(digest)]}~{digest}"
    return out
