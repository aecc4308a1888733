"""Names of jobs -> paths: quoted by us, old settings understood, and no way out of the server's jobs."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.jenkins.jobpath import branch_item, job_path, parse_job_name
from deploykit.errors import InvalidName


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("shop-tests", "job/shop-tests"),
        ("team/shop tests", "job/team/job/shop%20tests"),
        ("team/shop%20tests", "job/team/job/shop%20tests"),  # as the original's settings wrote it
        ("Geschäft", "job/Gesch%C3%A4ft"),
        ("Gesch%C3%A4ft", "job/Gesch%C3%A4ft"),
        ("shop/main", "job/shop/job/main"),
        ("shop/a%2Fb", "job/shop/job/a%252Fb"),  # a branch, as Jenkins calls its item
        ("shop/a%252Fb", "job/shop/job/a%252Fb"),  # the same, from the browser's address line
        ("shop/a%2fb", "job/shop/job/a%252Fb"),
        ("shop/fix%23 7", "job/shop/job/fix%2523%207"),
        ("a?b#c", "job/a%3Fb%23c"),
        ("a;x=y", "job/a%3Bx%3Dy"),
        ("...", "job/..."),
    ],
)
def test_every_part_is_quoted_by_us(name: str, path: str) -> None:
    assert job_path(parse_job_name(name)) == path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/%2e%2e/b",
        "a/%2E./b",
        "a/.. /b",
        "a/ /b",
        "a/%20",
        "a\nb",
        "a%0d%0aX: y",
        "a%00b",
        "a\x7fb",
        "a\\..\\b",
        "a%ff",
        "a\u202eb",
        "x" * 1025,
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="not the name of a job"):
        parse_job_name(name)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidName):
        parse_job_name(None)


@given(st.text(max_size=60))
def test_no_name_leads_out_of_the_jobs(name: str) -> None:
    try:
        parts = parse_job_name(name)
    except InvalidName:
        return
    pieces = job_path(parts).split("/")
    assert pieces[::2] == ["job"] * len(parts)
    for piece, part in zip(pieces[1::2], parts, strict=True):
        assert unquote(piece) == part
        assert piece not in ("", ".", "..")
        assert piece.isascii()
        assert not set(piece) & set("?#;\\ \r\n")


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60))
def test_a_branch_is_one_part_whatever_it_is_called(branch: str) -> None:
    item = branch_item(branch)
    if branch not in (".", ".."):
        assert unquote(item) == branch
    assert "/" not in item


@pytest.mark.parametrize(
    ("branch", "path"), [("main", "job/main"), ("feature/login", "job/feature%252Flogin"), ("v1.2", "job/v1.2")]
)
def test_the_item_of_a_branch_is_found_at_its_path(branch: str, path: str) -> None:
    assert job_path(parse_job_name(branch_item(branch))) == path
