"""docs/wire-format.md keeps its word: its example runs, its tables name every type and field, its limits are ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from deploykit.messages import BY_TYPE, Commit, HeldRef, Message, SitePart, SiteRelease, SiteState, StepReport
from deploykit.wire import strictjson
from deploykit.wire.field_types import MAX_COUNT, fields
from deploykit.wire.frame import MAX_HEADERS, RESERVED_HEADERS
from tests.support.needs import needs

PAGE = (Path(__file__).parents[3] / "docs" / "wire-format.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]


def test_the_worked_example_is_signed_by_ssh_keygen_and_believed_by_us(tmp_path: Path) -> None:
    keygen = needs("ssh-keygen", package="openssh-client")
    (script,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    wrapper = tmp_path / "bin" / "deploykit"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m deploykit "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["sh", "-eu", "-c", f"umask 077; {script}"],
        cwd=tmp_path,
        env={
            "PATH": f"{wrapper.parent}:{keygen.parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            **{k: v for k, v in os.environ.items() if k.startswith("COVERAGE")},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "good signature by" in done.stdout
    assert "deploy shop v1.4 9d2c1f0e5b7a on web1 requested" in done.stdout


@pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)
def test_every_type_stands_in_a_table_with_every_field(cls: type[Message]) -> None:
    (row,) = [r for r in ROWS if f"`{cls.TYPE}`" in r]
    assert f"`{cls.__name__}`" in row
    if "| the same, and" in row:
        row += next(r for r in ROWS if "`deploykit.build.started.v1`" in r)
    missing_word = [f.name for f in fields(cls) if f"`{f.name}`" not in row]
    assert missing_word == []
    wrongly_bold = [f.name for f in fields(cls) if (f"**`{f.name}`**" in row) != f.required]
    assert wrongly_bold == []


@pytest.mark.parametrize(
    ("cls", "title"),
    [
        (Commit, "a commit"),
        (StepReport, "a step"),
        (SiteRelease, "a release"),
        (SiteState, "a site of a node"),
        (SitePart, "a part"),
        (HeldRef, "a held ref"),
    ],
)
def test_every_part_of_a_message_stands_in_a_table_with_every_field(cls: type, title: str) -> None:
    (row,) = [r for r in ROWS if r.startswith(f"| {title} |")]
    assert [f.name for f in fields(cls) if f"`{f.name}`" not in row] == []
    assert [f.name for f in fields(cls) if (f"**`{f.name}`**" in row) != f.required] == []


def test_every_choice_is_named() -> None:
    for cls in [*BY_TYPE.values(), StepReport]:
        for field in fields(cls):
            choices = getattr(field.type, "schema", {}).get("enum", ())
            assert [c for c in choices if f"`{c}`" not in PAGE] == []


def test_the_limits_on_the_page_are_ours() -> None:
    assert strictjson.MAX_BODY == 1_048_576
    assert "1,048,576 bytes" in PAGE
    assert f"at most **{strictjson.MAX_DEPTH}** levels" in PAGE
    assert f"at most **{strictjson.MAX_ITEMS}** entries" in PAGE
    assert f"longer than {MAX_HEADERS} bytes" in PAGE
    assert MAX_COUNT == 2**53 - 1
    for name in re.findall(r"`([a-z-]+)`", next(line for line in PAGE.splitlines() if "belong to STOMP" in line)):
        assert name in RESERVED_HEADERS


def test_a_message_has_no_field_that_the_page_hides() -> None:
    assert {a.name for a in attrs.fields(Message)} == {"id", "source", "time", "correlation_id", "extra", "extensions"}
