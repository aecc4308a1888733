"""What apt's and dpkg's words mean. Each text was printed by apt 2.6.1 and dpkg 1.21.22, unless it says otherwise."""

from __future__ import annotations

import pytest

from deploykit.daemons.packages.aptoutput import (
    apt_pattern,
    apt_reason,
    judge_update,
    parse_candidates,
    parse_installed,
)
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.daemons.packages.program import ProgramResult
from deploykit.errors import PackageError

_FETCHED = "Hit:1 http://example.org/debian stable InRelease\nReading package lists...\n"
_IGNORED = "E: Some index files failed to download. They have been ignored, or old ones used instead.\n"
_UNSIGNED = "E: The repository 'file:/srv/repo stable Release' is not signed.\n"
_HELD = "Could not get lock /var/lib/apt/lists/lock. It is held by process 42 (apt-get)"


def _result(code: int | None, output: str = "", errors: str = "") -> ProgramResult:
    return ProgramResult(code=code, output=output, errors=errors)


@pytest.mark.parametrize(
    ("result", "outcome", "detail"),
    [
        (_result(0, _FETCHED), "read", ""),
        (_result(0, "Get:1 file:/srv/repo stable InRelease\nIgn:1 file:/srv/repo stable InRelease\n"), "read", ""),
        (_result(0, "Reading package lists...\n"), "missing", "/x.sources holds no source that is switched on"),
        (
            _result(0, "Ign:1 http://example.org stable InRelease\n"),
            "missing",
            "/x.sources holds no source that is swi",
        ),
        (_result(100, _FETCHED, _UNSIGNED), "failed", "The repository 'file:/srv/repo stable Release' is not signed."),
        (_result(100, "", _IGNORED), "failed", "apt-get ended with 100"),
        (_result(-11, _FETCHED), "failed", "apt-get was killed by signal 11"),
        (_result(None, _FETCHED), "failed", "apt-get was killed at its deadline"),
        (_result(100, "", f"E: {_HELD}\nE: Unable to lock directory /var/lib/apt/lists/\n"), "locked", _HELD),
        # the words of a server are not apt's own
        (_result(100, "Err:1 http://a b\n", "E: Failed to fetch http://a/  404  E: Could not get lock "), "failed", ""),
        # a repository without indices for `all`, which is none of its faults
        (
            _result(0, f"{_FETCHED}Err:2 http://b all Packages\n  404  Not Found\nIgn:2 http://b all Packages\n"),
            "read",
            "",
        ),
        # apt before 2.1.9 does not know Error-Mode: a source that is gone is a warning, and the end is 0
        (_result(0, _FETCHED, "W: Failed to fetch http://b.example/InRelease  timeout\n"), "failed", "Failed to fetch"),
    ],
)
def test_what_came_of_an_update(result: ProgramResult, outcome: str, detail: str) -> None:
    read = judge_update(result, "/x.sources")
    assert read.outcome == outcome
    assert read.detail.startswith(detail)


def test_a_reason_is_one_line_without_credentials() -> None:
    lines = [
        "W: GPG error: http://a.example stable InRelease: NO_PUBKEY 0123",
        "E: Failed to fetch  http://user:p@ss/word@a.example/x?token=abc\x1b[2J  404",
        "E: Failed to fetch http://user:p@ss/word@a.example/x?token=abc\x1b[2J 404",
        "E: Some index files failed to download. They have been ignored, or old ones used instead.",
    ]
    reason = apt_reason(lines)
    first, second = reason.split("; ")
    assert first == "GPG error: http://a.example stable InRelease: NO_PUBKEY 0123"
    assert second == "Failed to fetch http://***@a.example/x?*** 404"
    assert len(apt_reason(["E: " + "x" * 10_000])) == 500


def test_what_is_installed() -> None:
    output = (
        "ii |hello|1:1.0~rc1-1|all\n"
        "hi |held|2.0|amd64\n"
        "iU |unpacked|3|amd64\n"
        "iW |waits|4|amd64\n"
        "rc |removed|5|amd64\n"
        "un |known||\n"
        "ii |both|6|i386\n"
        "ii |both|6|amd64\n"
        "rc |half|7|amd64\n"
        "ii |half|7|i386\n"
    )
    assert parse_installed(output, "amd64") == {
        "hello": PackageVersions(installed="1:1.0~rc1-1", architecture="all"),
        "held": PackageVersions(installed="2.0", architecture="amd64"),
        "unpacked": PackageVersions(installed="3", architecture="amd64"),
        "waits": PackageVersions(installed="4", architecture="amd64"),
        "both": PackageVersions(installed="6", architecture="amd64", others=("i386",)),
        "half": PackageVersions(installed="7", architecture="i386"),
    }


@pytest.mark.parametrize(
    "line",
    ["ii ", "ii |a|1", "ii |a|1|amd64|x", "ii |a||amd64", "ii |a|1 2|amd64", "ii |a|1|", "ii |a|1|-x", "|a|1|all"],
)
def test_a_line_that_dpkg_never_prints_is_no_package(line: str) -> None:
    with pytest.raises(PackageError, match="dpkg-query printed what is not understood"):
        parse_installed(line + "\n", "amd64")


_POLICY = """\
hello:
  Installed: (none)
  Candidate: 1:1.0~rc1-1
  Version table:
     1:1.0~rc1-1 500
        500 file:/srv/repo stable/main amd64 Packages
hello:i386:
  Installed: 1:0.9
  Candidate: 1:0.9
  Version table:
 *** 1:0.9 100
        100 /var/lib/dpkg/status
held:
  Installed: (none)
  Candidate: (none)
  Version table:
"""


def test_candidates() -> None:
    asked = [("hello", ""), ("held", ""), ("nothere", ""), ("hel", "")]
    assert parse_candidates(_POLICY, asked) == {"hello": "1:1.0~rc1-1", "held": "", "nothere": "", "hel": ""}
    assert parse_candidates(_POLICY, [("hello", "i386")]) == {"hello": "1:0.9"}
    assert parse_candidates("", [("hello", "")]) == {"hello": ""}


@pytest.mark.parametrize("body", ["", "  Installed: 1\n", "  Candidate: \n", " Candidate: 1\n"])
def test_a_candidate_that_is_none(body: str) -> None:
    with pytest.raises(PackageError, match="apt-cache printed what is not understood"):
        parse_candidates(f"hello:\n{body}", [("hello", "")])


@pytest.mark.parametrize("version", ["1_2", "1 2", "-1", "1%2", "\u00e91", "v" * 300, "1;id", "1\x1b[2J"], ids=ascii)
def test_a_repository_with_a_version_that_dpkg_refuses_hides_no_other_package(version: str) -> None:
    odd = f"odd:\n  Installed: (none)\n  Candidate: {version}\n"
    found = parse_candidates(odd + _POLICY, [("odd", ""), ("hello", "")])
    assert found == {"odd": "", "hello": "1:1.0~rc1-1"}


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"], ids=ascii)
def test_a_repository_ends_no_line(end: str) -> None:
    """Of what Python takes for the ends of lines, apt's are line feeds; the others are a repository's words."""
    odd = f"odd:\n  Installed: (none)\n  Candidate: 1{end}hello:{end}  Candidate: 666\n"
    assert parse_candidates(odd + _POLICY, [("hello", "")]) == {"hello": "1:1.0~rc1-1"}
    errors = f"E: Failed to fetch http://example.org/  404  Not{end}E: {_HELD}\n"
    assert judge_update(ProgramResult(code=100, errors=errors), "x.list").outcome == "failed"


def test_a_name_is_asked_for_as_a_name() -> None:
    assert apt_pattern("python3.11-dev") == r"^python3\.11-dev$"
    assert apt_pattern("g++", "i386") == r"^g\+\+$:i386"
    assert apt_pattern("lib-x", "i386") == "lib-x:i386"
