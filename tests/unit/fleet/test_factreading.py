"""Files of facts and classes that settings name: nothing in one breaks a node, stops it, or fills its memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from deploykit.errors import FactsError
from deploykit.fleet.factreading import read_classes, read_facts
from deploykit.fleet.factsfile import MAX_FILE

LISTS = b"a: &a [lol, lol]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
MERGES = b"a: &a {x: 1}\n" + b"".join(b"%c: &%c {<<: [*%c, *%c]}\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
TEXTS = b"a: &a " + b"x" * 500_000 + b"\nb: [" + b"*a," * 100_000 + b"]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "facts.yaml"


def peak() -> int:
    """Bytes of memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_facts_and_classes_are_read(file: Path, tmp_path: Path) -> None:
    file.write_text("env: live\nos: {name: Debian}\n")
    assert read_facts(file) == {"env": "live", "os": {"name": "Debian"}}
    (tmp_path / "classes.txt").write_text("nginx\nrole::web\n")
    assert read_classes(tmp_path / "classes.txt") == ("nginx", "role::web")


@pytest.mark.parametrize(
    "raw",
    [
        *(LISTS, MERGES, TEXTS, b"a: &a [*a]\n", b"a: *b\n"),
        *(b"[" * MAX_FILE, b"{a: " * 200_000, b"- " * 500_000, b"a: " + b"[" * 500_000 + b"]" * 500_000),
        *(b"? " * 500_000, b"a: !!python/object/apply:os.system [id]\n---\n"),
        *(b"\x7fELF\x02\x01\x01\x00", b"\x00" * 4096, b"\xff\xfe\x00", b"- a\n", b"live\n", b"a: 1\na: 2\n"),
        *(b"a: b: c\n", b"a: [1\n", b"a: 1\n---\nb: 2\n"),
    ],
    ids=lambda raw: f"{raw[:12]!a}-{len(raw)}",
)
def test_a_hostile_or_broken_file_is_a_problem_line_at_once(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    before, began = peak(), time.monotonic()
    with pytest.raises(FactsError) as refused:
        read_facts(file)
    assert time.monotonic() - began < 20
    assert peak() - before < 400_000_000
    text = str(refused.value)
    assert str(file) in text
    assert text.isprintable()
    assert len(text) < 600


def test_hostile_json_is_a_problem_line_too(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    for raw in (b'{"a":' * 200_000, b'{"a": ' + b"9" * 900_000 + b"}", b'{"a": NaN}', b"\x00", b'{"a":1,"a":1}'):
        file.write_bytes(raw)
        with pytest.raises(FactsError, match=r"facts\.json"):
            read_facts(file)


def test_a_gigabyte_is_refused_and_not_read(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(1 << 30)
    began = time.thread_time()
    with pytest.raises(FactsError, match=f"longer than {MAX_FILE} bytes"):
        read_facts(file)
    assert time.thread_time() - began < 1


def test_what_has_no_size_is_read_up_to_the_cap(tmp_path: Path) -> None:
    """Files of /proc have size 0."""
    assert "Name" in str(read_facts(Path("/proc/self/status")))


def test_a_pipe_a_device_and_a_directory_are_no_facts_and_stop_nobody(file: Path, tmp_path: Path) -> None:
    os.mkfifo(file)
    done: list[str] = []

    def read() -> None:
        with pytest.raises(FactsError, match="not a regular file"):
            read_facts(file)
        done.append("pipe")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(60)
    assert done == ["pipe"]
    for path in (tmp_path, tmp_path / "missing.yaml", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(FactsError):
            read_facts(path)


def test_a_class_that_is_none_is_a_problem_line(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    for raw in (b"nginx\nbad\x1b[31mname\n", b"\xff\n"):
        file.write_bytes(raw)
        with pytest.raises(FactsError, match=r"classes\.txt"):
            read_classes(file)
