"""Where the symlinks of a tree lead, computed from the tree alone as the kernel would follow them.

Counting `..` in a target is not enough: `a/b -> ..` is harmless alone, and a second link that passes through it may
leave the tree. So each target is walked part by part, through the tree's other links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

#: The kernel gives up (ELOOP) after 40 links; such a link leads nowhere, so it leads nowhere outside.
_MAX_HOPS: Final = 40


def leaves_tree(path: bytes, links: Mapping[bytes, bytes], outside: frozenset[bytes] = frozenset()) -> bool:
    """Return whether following the link at `path` can leave the tree.

    Args:
        path: the link, relative to the tree's root.
        links: every link of the tree: path -> target.
        outside: paths that will be links to shared directories: passing through is fine, but a `..` after one of
            them would start from there.

    >>> leaves_tree(b"a/x", {b"a/x": b"../b"}), leaves_tree(b"a/x", {b"a/x": b"../../b"})
    (False, True)
    >>> leaves_tree(b"e", {b"e": b"d/../../etc", b"d": b"a/b"})
    False
    >>> leaves_tree(b"a/e", {b"a/e": b"d/../x", b"a/d": b".."})
    True
    """
    here: list[bytes] = path.split(b"/")[:-1]
    target = links[path]
    if target.startswith(b"/"):
        return True
    todo = deque(target.split(b"/"))
    hops = 0
    gone = False  # beyond a shared directory: nothing is known there
    while todo:
        part = todo.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if gone or not here:
                return True
            here.pop()
            continue
        here.append(part)
        full = b"/".join(here)
        if full in outside:
            gone = True
        onward = links.get(full)
        if onward is None or gone:
            continue
        hops += 1
        if hops > _MAX_HOPS:
            return False
        if onward.startswith(b"/"):
            return True
        here.pop()
        todo.extendleft(reversed(onward.split(b"/")))
    return False
