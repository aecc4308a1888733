"""`.gitmodules`: where a repository says its submodules come from. Pure.

A repository's own text: an address in it is a key to look up, never a place to connect to.
"""

from __future__ import annotations

import io
from typing import Final

import attrs
from dulwich.config import ConfigFile

from deploykit.errors import TreeError
from deploykit.trees.names import shown

_MAX_BYTES: Final = 256 << 10
_MOST: Final = 1000
#: Bytes of a path, and directories in it. No tree that may be written has more.
_MAX_PATH: Final = 4000
_MAX_DEPTH: Final = 200


@attrs.frozen(kw_only=True, slots=True)
class Submodule:
    """One entry: the path in the tree, and the address that stands there, as it is written."""

    path: bytes
    url: str


def read_gitmodules(content: bytes) -> dict[bytes, Submodule]:
    """Return the submodules by their paths.

    An entry without a path or an address, or with `..` in its name, counts for nothing, as for git. Other keys
    (`update`, `branch`) are not read.

    Raises:
        TreeError: it is too large, cannot be parsed, or says two things of one path. The text quotes nothing of it but
            paths: an address may hold a password.
    """
    if len(content) > _MAX_BYTES:
        raise TreeError(f".gitmodules has {len(content)} bytes; {_MAX_BYTES} are allowed", "correct the repository")
    try:
        config = ConfigFile.from_file(io.BytesIO(content), expand_includes=False)
        sections = [name for name in config.sections() if len(name) == 2 and name[0].lower() == b"submodule"]
    except (ValueError, IndexError, KeyError, AssertionError, RecursionError) as error:
        raise TreeError(
            f".gitmodules cannot be parsed ({type(error).__name__})", "see `git config -f .gitmodules --list`"
        ) from None
    found: dict[bytes, Submodule] = {}
    for name in sections:
        try:
            path, url = config.get(name, b"path"), config.get(name, b"url")
        except KeyError:
            continue
        if not path or not url or not _is_name(name[1]):
            continue
        if len(path) > _MAX_PATH or path.count(b"/") > _MAX_DEPTH:
            raise TreeError(f".gitmodules has a path of {len(path)} bytes: {shown(path)}", "correct the repository")
        entry = Submodule(path=path.rstrip(b"/"), url=_text(url))
        if found.setdefault(entry.path, entry) != entry:
            raise TreeError(f".gitmodules names two addresses for {shown(entry.path)}", "keep one of them")
        if len(found) > _MOST:
            raise TreeError(f".gitmodules names more than {_MOST} submodules", "correct the repository")
    return found


def _is_name(name: bytes) -> bool:
    """Return whether git takes the name of a submodule: it makes a directory of it."""
    return bool(name) and b".." not in name.replace(b"\\", b"/").split(b"/")


def _text(url: bytes) -> str:
    return url.decode("utf-8", "backslashreplace")


def absolute_url(base: str, url: str) -> str:
    """Return a submodule's address, made whole by that of the repository that it is in, as git does.

    Where `base` is empty, a relative one stays as it is.

    >>> absolute_url("https://git.example.org/web/shop.git", "../theme.git")
    'https://git.example.org/web/theme.git'
    >>> absolute_url("git@git.example.org:shop.git", "../theme.git")
    'git@git.example.org:theme.git'
    """
    if not base or not url.startswith(("./", "../")):
        return url
    base, joint = base.rstrip("/"), "/"
    while url.startswith(("./", "../")):
        dots, _, url = url.partition("/")
        if dots == "..":
            above, found, _ = base.rpartition("/")
            if not found:
                above, found, _ = base.rpartition(":")
                joint = ":" if found else joint
            base = above
    return f"{base}{joint}{url}".rstrip("/")


def url_key(url: str) -> str:
    """Return what addresses of one repository have in common: neither a login nor `.git` or `/` at the end.

    >>> url_key("https://ann@git.example.org/theme.git/") == url_key("https://git.example.org/theme")
    True
    """
    scheme, found, rest = url.strip().partition("://")
    if found:
        host, slash, path = rest.partition("/")
        host = host.rpartition("@")[2] if scheme.lower() in ("http", "https") else host
        url = f"{scheme.lower()}://{host.lower()}{slash}{path}".removeprefix("file://")
    return url.strip().rstrip("/").removesuffix(".git").rstrip("/")
