"""What we say of a symlink is what the kernel does with it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploykit.trees.links import leaves_tree

_part = st.sampled_from(["a", "b", "c", "..", "..", ".", ""])
_targets = st.lists(_part, min_size=1, max_size=6).map("/".join).filter(lambda t: t != "")
_paths = st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/f/b"])


@settings(max_examples=400, deadline=None)
@given(links=st.dictionaries(_paths, _targets, min_size=1, max_size=5))
@example(links={"d/a": "..", "d/b": "a/../x"})
@example(links={"a": "b", "b": "a"})
@example(links={"a": "/etc"})
@example(links={"d/e/a": "../../..", "b": "d/e/a"})
def test_a_link_that_the_kernel_would_follow_out_of_the_tree_is_found(links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as where:
        root = Path(os.path.realpath(where)) / "one" / "two" / "three" / "four" / "five" / "six" / "tree"
        root.mkdir(parents=True)
        for path in ["d/e/f", *(str(Path(p).parent) for p in links)]:
            (root / path).mkdir(parents=True, exist_ok=True)
        # Give `..` something to stand on wherever a link may lead.
        for path in ("a", "b", "c"):
            for parent in (root, root / "d", root / "d/e", root / "d/e/f"):
                if str((parent / path).relative_to(root)) not in links:
                    (parent / path).mkdir(exist_ok=True)
        for path, target in links.items():
            (root / path).symlink_to(target)
        known = {p.encode(): t.encode() for p, t in links.items()}
        for path in links:
            try:
                end = os.path.realpath(root / path, strict=True)
            except OSError:
                continue  # a circle, or a name that is not there: it leads nowhere
            outside = os.path.commonpath([end, root]) != str(root)
            if outside:
                assert leaves_tree(path.encode(), known)


@settings(deadline=None)
@given(links=st.dictionaries(_paths, st.lists(st.sampled_from(["a", "b", "d"]), min_size=1).map("/".join), min_size=1))
def test_a_link_that_never_goes_up_is_never_refused(links: dict[str, str]) -> None:
    known = {p.encode(): t.encode() for p, t in links.items()}
    assert not any(leaves_tree(p, known) for p in known)


def test_behind_a_shared_directory_nothing_may_go_up() -> None:
    links = {b"x": b"uploads/file", b"y": b"uploads/../../secret"}
    shared = frozenset([b"uploads"])
    assert not leaves_tree(b"x", links, shared)
    assert leaves_tree(b"y", links, shared)
