"""Files of several programs give one draft that is accepted, and each key of theirs is in it or listed as lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.config.migrate.convert import convert, kind_of_file
from deploykit.config.migrate.kinds import KINDS, all_kinds, kind_of_name
from deploykit.config.migrate.model import MigrationDraft, OldFile
from deploykit.config.migrate.render import render, render_hooks
from deploykit.config.migrate.writing import acceptance_problems
from deploykit.errors import UsageError
from deploykit.messages.topics import PRESETS
from tests.support.oldsettings import (
    KEEPALIVE,
    R10K,
    RSERVER,
    SAMPLES,
    STOMP_GIT,
    STOMP_JENKINS,
    accepted,
    drafted,
    lost_keys,
    old_file,
)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_known_by_its_keys_and_accepted(name: str, tmp_path: Path) -> None:
    assert kind_of_file(old_file(SAMPLES[name])).name == name
    draft = drafted(SAMPLES[name])
    accepted(draft, tmp_path)
    assert acceptance_problems(draft) == ()


def test_several_files_become_one(tmp_path: Path) -> None:
    draft = drafted(STOMP_GIT, STOMP_JENKINS, KEEPALIVE, R10K)
    made = accepted(draft, tmp_path)
    assert len(made.repositories) == 10
    assert len(made.jenkins.jobs) == 3
    assert len(made.keepalive.destinations) == 2
    assert made.topics == PRESETS["future"]


def test_where_two_files_say_otherwise_the_first_counts_and_the_other_is_listed(tmp_path: Path) -> None:
    other = STOMP_JENKINS.replace("future.git.commits", "other.commits").replace("gitpw", "otherpw")
    draft = drafted(STOMP_GIT, other)
    assert accepted(draft, tmp_path).topics.source == "/topic/future.git.commits"
    assert draft.secrets["broker", "passcode_file"] == "gitpw"
    assert lost_keys(draft)["listen-topic"] == "topics.source: another file says otherwise, and came first"
    why = [lost.why for lost in draft.lost if lost.key == "rserver"]
    assert why == ["broker.passcode_file: another file says otherwise, and came first"]
    assert "pw" not in "".join(lost.why for lost in draft.lost)


def test_no_topic_moves_when_legacy_is_taken_out(tmp_path: Path) -> None:
    """Where it named no preset, what is in no old file would be sent where nobody listens."""
    draft = drafted(STOMP_GIT)
    with_it = accepted(draft, tmp_path)
    draft.values["legacy",] = False
    assert with_it.legacy
    assert accepted(draft, tmp_path).topics == with_it.topics


def test_the_same_said_twice_is_no_conflict() -> None:
    assert lost_keys(drafted(STOMP_JENKINS, STOMP_JENKINS)) == lost_keys(drafted(STOMP_JENKINS))


def test_what_a_file_is_can_be_said() -> None:
    text = "topics: {a: {user: x}}\nsites: {}\n"
    with pytest.raises(UsageError, match=r"old0.yaml: .* --kind"):
        drafted(text)
    assert ("keepalive", "destinations", "a", "login") in drafted(text, kind="keepalive").values


@pytest.mark.parametrize("text", ["a: 1\n", "sources: 1\n", "topics: [x]\n", "listen-topic: x\n"])
def test_a_file_of_no_known_kind_is_refused_with_the_kinds_there_are(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        drafted(text)
    assert "--kind" in str(caught.value)
    assert "stomp-git" in str(caught.value)


def test_an_unknown_kind_and_a_node_that_is_none_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no kind 'x'.*stomp-git"):
        drafted(STOMP_GIT, kind="x")
    with pytest.raises(UsageError, match="node"):
        convert([old_file(STOMP_GIT)], node="a b")


def test_brokers_with_a_login_each_keep_it_in_the_address(tmp_path: Path) -> None:
    draft = drafted(STOMP_JENKINS.replace("gituser:gitpw@broker02", "other:p%40ss@broker02"))
    assert "PASSCODE" in render(draft)
    assert "p%40ss" not in render(draft)
    made = accepted(draft, tmp_path)
    assert made.broker.login == ""
    assert "stomp://other:p%40ss@broker02:61613" in render(draft, private=True)
    assert any("mode 0600" in warning for warning in draft.warnings)


@pytest.mark.parametrize(
    ("option", "place", "value"),
    [
        ("initialReconnectDelay=0.01", "backoff_initial", 0.01),
        ("MaxReconnectDelay=30", "backoff_max", 30.0),
        ("Timeout=5", "connect_timeout", 5.0),
        ("Timeout=-1", "connect_timeout", None),
        ("Timeout=soon", "connect_timeout", None),
        ("MaxReconnectDelay=0", "backoff_max", None),
    ],
)
def test_times_of_the_gem_are_seconds(option: str, place: str, value: float | None) -> None:
    draft = drafted(f"{RSERVER.splitlines()[0]}\nstomp-options: {option}\njenkins-url: https://ci.example.org/\n")
    assert draft.values.get(("broker", place)) == value
    assert (f"stomp-options.{option.partition('=')[0]}" in lost_keys(draft)) == (value is None)


@pytest.mark.parametrize("rserver", ["http://x", "stomp://user:hunter2@[", "failover:(stomp://a:hunter2@b c)", "[1]"])
def test_an_address_that_is_none_is_lost_without_its_passcode(rserver: str, tmp_path: Path) -> None:
    draft = drafted(f"rserver: {rserver}\njenkins-url: https://ci.example.org/\n")
    assert "rserver" in lost_keys(draft)
    assert "hunter2" not in str(draft) + render(draft, private=True)
    accepted(draft, tmp_path)


# -- nothing is dropped in silence ------------------------------------------------------------------------------------

NAMES = st.sampled_from(["shop", "a-b", "a b", "../x", "é", "a.b", "x" * 300, "", "tags", "stage"])


@st.composite
def trees(draw: st.DrawFn, kind: str) -> dict[str, object]:
    """A file of a kind: some of its keys, some that it does not know, and leaves that can be found again."""
    found: dict[str, object] = {}
    rows = draw(st.lists(st.sampled_from(kind_of_name(kind).rows), max_size=12, unique=True))
    unknown = draw(st.lists(st.sampled_from(["nonsense", "topcs", "sources.x.y.z", "repo-list.shop.what"]), max_size=2))
    for number, path in enumerate([*(row.old for row in rows), *unknown]):
        names = {"NUMBER": "1", "CONNECTOR": "stomp"} if kind == "mcollective" else {}
        parts = [names.get(p) or (draw(NAMES) if p.isupper() and p.isalpha() else p) for p in path.split(".")]
        if kind == "mcollective":  # its keys have dots in them
            parts = [".".join(parts)]
        marker = f"{draw(st.sampled_from(['', '/', '/srv/', 'https://h/', 'refs/heads/']))}mark{number}x"
        leaf = draw(
            st.sampled_from([marker, marker, marker, [marker], {"k": marker}, {"k": {"k": marker}}, [[marker]]])
            | st.sampled_from([None, True, 0, 1.5, "", "normal", "tags", "branch", "topic", [], {}])
        )
        at: object = found
        for part in parts[:-1]:
            name, listed, _ = part.partition("[]")
            if isinstance(at, dict):
                at = at.setdefault(name, [{}] if listed else {})
            if isinstance(at, list) and at:
                at = at[0]
        if isinstance(at, dict):
            at.setdefault(parts[-1], leaf)
    return found


def leaves_of(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Each text in a tree, with the dotted path that a lost key would have."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves_of(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from leaves_of(item, f"{path}[{at}]")
    elif isinstance(value, str) and "mark" in value:
        yield path, value[value.index("mark") :]


def dropped(file: OldFile, draft: MigrationDraft) -> list[str]:
    """The leaves that are neither in the draft nor lost."""
    kept = f"{draft.values} {draft.secrets} {draft.comments}"
    lost = [lost.key for lost in draft.lost]
    return [
        path
        for path, marker in leaves_of(file.data)
        if marker not in kept and not any(path.startswith(key) or key.startswith(path) for key in lost)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_tree_crashes_and_no_leaf_is_dropped_in_silence(kind: str) -> None:
    @settings(max_examples=25)
    @given(tree=trees(kind))
    def check(tree: dict[str, object]) -> None:
        file, draft = OldFile(path=Path("old.yaml"), data=tree), MigrationDraft()
        [*(each.fits(file) for each in all_kinds())]
        kind_of_name(kind).convert(file, draft)
        assert dropped(file, draft) == []
        render_hooks(draft)
        assert acceptance_problems(draft) == ()

    check()
