"""Files of the original's programs that are wrong, hostile or huge: no traceback, and no key is dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploykit.config.migrate.kinds import kind_of_name
from deploykit.config.migrate.model import MigrationDraft, OldFile
from deploykit.config.migrate.render import render_hooks
from tests.support.oldkinds import SAMPLES
from tests.support.oldsettings import accepted, old_file

Path_ = tuple[str | int, ...]


def leaves(value: object, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values that hold no others, and of all that do."""
    if path:
        yield path
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from leaves(item, (*path, at))


def replaced(value: object, path: Path_, new: object) -> object:
    """The same value with another one at a path."""
    if not path:
        return new
    if isinstance(value, Mapping):
        return {key: replaced(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
    assert isinstance(value, list)
    return [replaced(item, path[1:], new) if at == path[0] else item for at, item in enumerate(value)]


def shown(path: Path_) -> str:
    """A path as `LostKey.key` has it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def at(value: object, path: Path_) -> object:
    """The value at a path."""
    for part in path:
        value = value[part]  # type: ignore[index]
    return value


def is_named(draft: MigrationDraft, path: Path_) -> bool:
    """Whether a key is in the list of what was lost: itself, what it holds, or what holds it."""
    wanted = shown(path)
    return any(
        lost.key.startswith(wanted) or (lost.key and wanted.startswith((f"{lost.key}.", f"{lost.key}[")))
        for lost in draft.lost
    )


#: The brokers are read by the same code in each kind: one of them is enough.
BROKERS = {"stompconnector", "rserver", "stomp-options"}
PATHS = {
    kind: [
        path
        for path in leaves(old_file(text, name).data)
        if path[0] not in BROKERS or kind in ("stomp-access", "repository-hook")
    ]
    for kind, (name, text) in SAMPLES.items()
}
VALUES = (None, "", "a\nb", "..", "../../etc", "\x1b[2J", "-x", "é ü", "x" * 5000, True, 1.5, -1, 10**30, "/", "/a b")
NAMES = ("..", "a/../b", "a\nb", "a\x00b", "[x]", "a.b", "a b", "", "é", "x" * 300, "\u202e", "'", '"', "x=y")
#: A map that many kinds take for one of theirs.
ENTRY = {
    "type": "nginx",
    "file": "/x",
    "filter": "class_filter",
    "payload": "p",
    "repo": "r",
    "target": "t",
    "name": "n",
}


def converted(kind: str, data: object) -> MigrationDraft:
    """What a file with this content becomes."""
    assert isinstance(data, dict)
    draft = MigrationDraft()
    kind_of_name(kind).convert(OldFile(path=Path(SAMPLES[kind][0]), data=data), draft)
    return draft


def sample(kind: str) -> Mapping[str, object]:
    """The content of the file that a kind's program came with."""
    name, text = SAMPLES[kind]
    return old_file(text, name).data


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_value_of_the_wrong_kind_is_named(kind: str, tmp_path: Path) -> None:
    wrong: list[object] = [[{"x": [1]}], {"x": {"y": 1}}, [[["a"]]]]
    for turn, path in enumerate(PATHS[kind]):
        drafts = [converted(kind, replaced(sample(kind), path, new)) for new in wrong]
        for draft in drafts:
            assert is_named(draft, path), (path, [lost.key for lost in draft.lost])
        accepted(drafts[turn % 3], tmp_path)


@pytest.mark.parametrize("kind", SAMPLES)
def test_whatever_a_value_is_the_settings_are_accepted(kind: str, tmp_path: Path) -> None:
    for turn, path in enumerate(PATHS[kind]):
        for new in VALUES[turn % 5 :: 5]:
            draft = converted(kind, replaced(sample(kind), path, new))
            accepted(draft, tmp_path)
            render_hooks(draft)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_key_may_have_any_name(kind: str, tmp_path: Path) -> None:
    maps = [path for path in ((), *PATHS[kind]) if isinstance(at(sample(kind), path), dict)]
    for turn, path in enumerate(maps):
        holder = at(sample(kind), path)
        assert isinstance(holder, dict)
        for name in NAMES[turn % 3 :: 3]:
            value: object = ENTRY if turn % 3 else "v"
            accepted(converted(kind, replaced(sample(kind), path, {**holder, name: value})), tmp_path)


@pytest.mark.parametrize("kind", SAMPLES)
def test_an_unknown_key_is_named_wherever_it_is(kind: str) -> None:
    for path in ((), *PATHS[kind]):
        holder = at(sample(kind), path)
        if isinstance(holder, dict):
            draft = converted(kind, replaced(sample(kind), path, {**holder, "no-such-key": "x"}))
            named = is_named(draft, (*path, "no-such-key"))
            assert named or (kind, path) in TAKEN_BY_NAME, (path, [lost.key for lost in draft.lost])


#: Where any key is a name that people chose.
TAKEN_BY_NAME = {("cillit-access", ("sites",))}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (
            "stomp-access",
            {"listen-topic": "t", "sites": {f"s{n}": {"type": "nginx", "file": f"/x/{n}"} for n in range(10_000)}},
        ),
        ("gitagent-facts", {f"{key}_s{n}": f"/data/{n}" for n in range(10_000) for key in ("sitedir", "controldir")}),
        ("gitagent-facts", {f"sitetype_s{n}": "live" for n in range(10_000)}),
        ("gitagent-facts", {f"fact{n}": "live" for n in range(10_000)}),
        ("grubby", {f"T {n}": {"filter": "class_filter", "payload": "c", "repo": f"s{n}"} for n in range(10_000)}),
        ("stomp-repo", {"listen-topic": "t", "packages": [f"p{n}" for n in range(10_000)]}),
        ("puppet-module", {"gitconfigure": {f"a{n}": {"repo": f"r{n}", "site": f"s{n}"} for n in range(10_000)}}),
        ("mcollective", {f"plugin.stomp.pool.host{n}": f"h{n}" for n in range(1000)}),
    ],
)  # fmt: skip
def test_ten_thousand_entries_are_converted(kind: str, data: dict[str, object]) -> None:
    draft = converted(kind, data)
    assert len(str(draft.values)) + len(draft.lost) >= 1000
    assert len(draft.warnings) < 10
