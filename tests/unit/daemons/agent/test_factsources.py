"""The sources of facts: merged in order, each alone in its failure, and facter never in a question's way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploykit.daemons.agent.factsources import FACTER_EVERY, FactSources
from deploykit.errors import FactsError
from deploykit.settings import FactsSettings


class Facter:
    """A facter that counts its runs."""

    def __init__(self) -> None:
        self.facts: Mapping[str, object] | FactsError = {"env": "facter", "kernel": "Linux"}
        self.runs = 0

    def __call__(self) -> Mapping[str, object]:
        self.runs += 1
        if isinstance(self.facts, FactsError):
            raise self.facts
        return self.facts


def settings(*files: Path, **more: object) -> FactsSettings:
    return FactsSettings(files=files, allow=("*",), classes_files=(), **more)  # type: ignore[arg-type]


def test_sources_are_merged_in_order_shallow_and_own_facts_win(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.yaml"
    one.write_text('{"env": "one", "a": 1, "os": {"name": "x", "old": true}, "own": "one"}')
    two.write_text("env: two\nos: {name: y}\nown: two\n")
    facter = Facter()
    sources = FactSources(settings(one, two, facter=True, own={"own": "mine"}), facter=facter)
    sources.refresh()
    known = sources.read()
    assert known.facts == {"env": "two", "kernel": "Linux", "a": 1, "os": {"name": "y"}, "own": "mine"}
    assert (known.cut, known.problems) == ((), ())


def test_a_file_that_breaks_counts_as_it_was_and_one_that_goes_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text('{"env": "live"}')
    sources = FactSources(settings(file))
    assert sources.read().facts == {"env": "live"}
    file.write_text('{"env": "li')  # a writer that is not done
    known = sources.read()
    assert known.facts == {"env": "live"}
    assert known.cut == ("facts: 1 of 1 files cannot be read",)
    assert str(file) in known.problems[0]
    assert str(tmp_path) not in str(known.cut)
    file.write_text('{"env": "stage"}')
    assert sources.read().facts == {"env": "stage"}
    file.unlink()
    known = sources.read()
    assert (known.facts, len(known.problems)) == ({}, 1)


def test_a_file_that_never_could_be_read_hides_no_other(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_bytes(b"\xff")
    good.write_text('{"env": "live"}')
    known = FactSources(settings(bad, tmp_path / "missing.json", good)).read()
    assert known.facts == {"env": "live"}
    assert known.cut == ("facts: 2 of 3 files cannot be read",)
    assert len(known.problems) == 2


def test_a_change_that_no_time_stamp_shows_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    sources = FactSources(settings(file))
    for word in ("aaaa", "bbbb", "cccc"):
        file.write_text(f'{{"env": "{word}"}}')
        os.utime(file, (1, 1))
        assert sources.read().facts == {"env": word}


def test_facter_runs_only_in_refresh_and_at_most_every_five_minutes() -> None:
    facter, now = Facter(), [100.0]
    sources = FactSources(settings(facter=True), facter=facter, clock=lambda: now[0])
    known = sources.read()
    assert (facter.runs, known.facts, known.cut) == (0, {}, ("facts: facter still runs",))
    for _ in range(5):
        sources.refresh()
        sources.read()
    assert facter.runs == 1
    now[0] += FACTER_EVERY - 1
    sources.refresh()
    assert facter.runs == 1
    now[0] += 1
    sources.refresh()
    assert facter.runs == 2


def test_a_facter_that_fails_is_not_run_again_at_once_and_its_older_facts_count() -> None:
    facter, now = Facter(), [0.0]
    sources = FactSources(settings(facter=True), facter=facter, clock=lambda: now[0])
    sources.refresh()
    facter.facts = FactsError("facter gave no answer within 10 s")
    now[0] += FACTER_EVERY
    for _ in range(3):
        sources.refresh()
    known = sources.read()
    assert facter.runs == 2
    assert known.facts == {"env": "facter", "kernel": "Linux"}
    assert (known.cut, known.problems) == (("facts: facter gave none",), ("facter gave no answer within 10 s",))


def test_without_facter_in_the_settings_it_never_runs() -> None:
    facter = Facter()
    sources = FactSources(settings(), facter=facter)
    sources.refresh()
    assert (facter.runs, sources.read().cut) == (0, ())


def test_the_first_list_of_classes_that_exists_is_read(tmp_path: Path) -> None:
    files = tuple(tmp_path / name for name in ("one", "two", "three"))
    files[1].write_text("nginx\n")
    files[2].write_text("apache\n")
    sources = FactSources(FactsSettings(classes_files=files))
    assert sources.read().classes == ("nginx",)
    files[0].write_text("".join(f"c{n}\n" for n in range(1500)))
    known = sources.read()
    assert (len(known.classes), known.classes[-1]) == (1000, "c999")
    assert known.cut == ("classes left out: more than 1000",)
    files[0].write_bytes(b"\xff")
    known = sources.read()
    assert known.cut == ("classes: the list cannot be read",)
    assert len(known.classes) == 1000


def test_nothing_a_directory_of_hostile_files_holds_stops_a_node(tmp_path: Path) -> None:
    (tmp_path / "dir.json").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "deep.json").write_text('{"a":' * 100_000)
    (tmp_path / "control.json").write_text('{"a\\u001b[2J": 1, "b": "\\u001b[31mred", "c": 1}')
    with (tmp_path / "huge.json").open("wb") as out:
        out.truncate(1 << 30)
    files = sorted(tmp_path.iterdir())
    known = FactSources(settings(*files)).read()
    assert known.facts == {"b": "\x1b[31mred", "c": 1}
    assert len(known.problems) == len(files) - 1
    assert all(line.isprintable() for line in (*known.cut, *known.problems))


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_path_that_is_none_is_a_problem(name: str) -> None:
    known = FactSources(settings(Path(name))).read()
    assert len(known.problems) == 1


def test_a_list_of_classes_that_cannot_be_looked_at_is_a_problem_and_nothing_raises() -> None:
    known = FactSources(FactsSettings(classes_files=(Path("/" + "x" * 300),))).read()
    assert known.cut == ("classes: the list cannot be read",)
    assert "too long" in known.problems[0]
