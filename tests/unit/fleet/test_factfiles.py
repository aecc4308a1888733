"""Files of facts and classes: what they may hold, and that nothing in one breaks or stops a node."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import FactsError
from deploykit.fleet.factfiles import MAX_FILE, parse_classes, parse_facts, read_classes, read_facts

PUPPET = b"""\
---
env: live
processorcount: 9
memory_gb: 15.5
uptime: "10"
kernelversion: 6.1.0
roles: [web, cache]
path: /srv/www
os: {name: Debian, release: {major: '12'}}
is_virtual: yes
nothing: ~
date: 2024-03-01
mode: 0755
time: 12:30:45
quoted: 'true'
text: |
  two
  lines
"""


def test_yaml_is_read_as_it_is_meant() -> None:
    assert parse_facts(PUPPET, "facts.yaml") == {
        "env": "live",
        "processorcount": 9,
        "memory_gb": 15.5,
        "uptime": "10",
        "kernelversion": "6.1.0",
        "roles": ["web", "cache"],
        "path": "/srv/www",
        "os": {"name": "Debian", "release": {"major": "12"}},
        "is_virtual": True,
        "nothing": None,
        "date": "2024-03-01",
        "mode": "0755",
        "time": "12:30:45",
        "quoted": "true",
        "text": "two\nlines\n",
    }


@pytest.mark.parametrize("name", ["facts.json", "FACTS.JSON", "facts", "/etc/facts.d/x.txt"])
def test_json_is_known_by_its_name_or_its_first_character(name: str) -> None:
    assert parse_facts(b' {"env": "live", "n": [1, 2.5, true]}', name) == {"env": "live", "n": [1, 2.5, True]}


def test_json_in_a_file_named_yaml_is_yaml_too() -> None:
    assert parse_facts(b'{"env": "live", "n": 9}', "facts.yaml") == {"env": "live", "n": 9}


@pytest.mark.parametrize("raw", [b"", b"# nothing yet\n", b"---\n", b"\xef\xbb\xbf"])
def test_an_empty_yaml_file_has_no_facts(raw: bytes) -> None:
    assert parse_facts(raw, "facts.yaml") == {}


def test_an_alias_of_a_text_is_the_text_as_ruby_writes_it() -> None:
    assert parse_facts(b"a: &1 live\nb: *1\n", "facts.yaml") == {"a": "live", "b": "live"}


BOMB = b"a: &a [lol, lol]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
MERGES = b"a: &a {x: 1}\n" + b"".join(b"%c: &%c {<<: [*%c, *%c]}\n" % (c, c, c - 1, c - 1) for c in range(98, 122))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (BOMB, "an alias that stands for a list or a map"),
        (MERGES, "the key <<"),
        (b"a: &a [*a]\n", "an alias"),
        (b"a: *b\n", "an alias"),
        (b"[" * 100_000, "line 1"),
        (b"a: " + b"{b: " * 50_000, "line 1"),
        (b"- " * 100_000, "line 1"),
        (b"a: !ruby/object:Gem::Requirement {}\n", "a tag"),
        (b"a: !!python/object/apply:os.system [id]\n", "a tag"),
        (b"a: !!binary aGk=\n", "a tag"),
        (b"!ruby/hash:Facts {a: 1}\n", "a tag"),
        (b"a: 1\na: 2\n", "the key a twice"),
        (b"? [a]\n: b\n", "a key that is no short text"),
        (b"a" * 5000 + b": b\n", "line 1"),
        (b"a: 1\n---\nb: 2\n", "a second document"),
        (b"a: b: c\n", "line 1"),
        (b"a: [1\n", "not YAML"),
        (b"\x7fELF\x02\x01\x01\x00", "not YAML"),
        (b"\x00" * 4096, "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8 at byte 0"),
        (b"- a\n", "holds no map"),
        (b"live\n", "holds no map"),
    ],
)
def test_hostile_or_broken_yaml_is_a_problem_line_at_once(raw: bytes, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(FactsError) as refused:
        parse_facts(raw, "/etc/facts.yaml")
    assert time.monotonic() - began < 5
    text = str(refused.value)
    assert text.startswith("/etc/facts.yaml")
    assert says in text
    assert text.isprintable()
    assert len(text) < 300


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "too large"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[1]", "holds no map"),
        (b"", "not JSON"),
        (b'{"a"', "not JSON"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_hostile_or_broken_json_is_a_problem_line(raw: bytes, says: str) -> None:
    with pytest.raises(FactsError, match=says) as refused:
        parse_facts(raw, "facts.json")
    assert len(str(refused.value)) < 300


def problem_of(raw: bytes, name: str) -> str:
    """What is wrong with a file; empty where its facts can be used."""
    try:
        parse_facts(raw, name)
    except FactsError as error:
        return str(error)
    return ""


@given(st.binary(max_size=400))
def test_any_bytes_are_facts_or_a_problem(raw: bytes) -> None:
    for name in ("x.yaml", "x.json", "x"):
        assert problem_of(raw, name).isprintable()


@given(st.text(alphabet="ab:-*&!<[]{}#|>?'\"%@\n ,~1.", max_size=60))
def test_any_yaml_like_text_is_facts_or_a_problem(text: str) -> None:
    assert problem_of(text.encode(), "x.yaml").isprintable()


def test_without_pyyaml_a_yaml_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(FactsError, match=r"pip install 'deploykit\[yaml\]'"):
        parse_facts(b"a: 1", "facts.yaml")


def test_a_gigabyte_is_refused_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    with file.open("wb") as out:
        out.truncate(1 << 30)
    began = time.monotonic()
    with pytest.raises(FactsError, match=f"longer than {MAX_FILE} bytes"):
        read_facts(file)
    assert time.monotonic() - began < 1


def test_a_file_that_grows_without_a_size_is_read_up_to_the_cap(tmp_path: Path) -> None:
    """Files of /proc have size 0."""
    assert read_classes(Path("/proc/self/status"))
    with pytest.raises(FactsError, match="not a regular file"):
        read_facts(Path("/dev/zero"))


def test_a_pipe_and_a_directory_are_no_facts_and_stop_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "facts.yaml"
    os.mkfifo(pipe)
    done: list[str] = []

    def read() -> None:
        with pytest.raises(FactsError, match="not a regular file"):
            read_facts(pipe)
        done.append("pipe")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert done == ["pipe"]
    with pytest.raises(FactsError):
        read_facts(tmp_path)
    with pytest.raises(FactsError, match="No such file"):
        read_facts(tmp_path / "missing.yaml")
    with pytest.raises(FactsError):
        read_facts(Path("a\0b"))


def test_classes_are_one_a_line_each_once_without_what_is_no_name() -> None:
    raw = b"nginx\n# a comment\n\n  role::web  \nnginx\nbad\x1b[31mname\n\xff\xfe\n" + b"x" * 300 + b"\nlast"
    assert parse_classes(raw) == ("nginx", "role::web", "last")


def test_of_too_many_classes_one_more_than_is_sent_is_returned() -> None:
    assert len(parse_classes(b"\n".join(b"c%d" % n for n in range(100_000)))) == 1001
