"""Templates and static files as the policy of the console allows them: nothing inline, nothing foreign, small."""

from __future__ import annotations

import gzip
import re
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
from jinja2 import nodes

from deploykit.web.live.events import EventKind
from deploykit.web.pages.assets import assets
from deploykit.web.pages.render import environment

_PAGES = Path(str(resources.files("deploykit.web.pages")))
TEMPLATES = sorted((_PAGES / "templates").glob("*.html"))
STATIC = sorted((_PAGES / "static").iterdir())

#: What must not stand in a template, as regular expressions, and why.
FORBIDDEN = {
    r"\|\s*safe\b|autoescape\s+false|Markup\(": "text from outside would be run",
    r"\sstyle\s*=|<style": "the policy blocks inline styles",
    r"\son\w+\s*=\s*[\"']": "the policy blocks inline script",
    r"<script(?![^>]*\ssrc=)": "the policy blocks inline script",
    r"(?:src|href|action)=[\"']?(?:https?:)?//": "another host",
    r"javascript:": "script as an address",
    r"=\{\{": "an attribute without quotes",
}


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_a_template_keeps_to_the_policy(file: Path) -> None:
    text = file.read_text()
    assert [(why, pattern) for pattern, why in FORBIDDEN.items() if re.search(pattern, text)] == []


def test_the_patterns_find_what_they_are_for() -> None:
    bad = (
        "{{ x|safe }}", '<p style="x">', '<a onclick="x">', "<script>x</script>", '<img src="//x">',
        '<a href="javascript:x">', "<a href={{ x }}>",
    )  # fmt: skip
    for text, pattern in zip(bad, FORBIDDEN, strict=True):
        assert re.search(pattern, text), text


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_every_template_is_read_without_an_error(file: Path) -> None:
    env = environment()
    assert isinstance(env.parse(file.read_text()), nodes.Template)
    env.get_template(file.name)
    assert len(file.read_text().splitlines()) <= 250


def test_every_live_part_has_an_id_and_hears_known_events() -> None:
    kinds = {*get_args(EventKind)} - {"reset"}
    for file in TEMPLATES:
        for tag in re.findall(r"<[^>]*\bdata-live=[^>]*>", file.read_text()):
            assert " id=" in tag, (file.name, tag)
            heard = re.search(r'data-live="([^"]*)"', tag)
            assert heard is not None
            assert set(heard[1].split()) <= kinds, (file.name, tag)


def test_the_script_hears_every_kind_of_event() -> None:
    listed = re.search(r"const KINDS = \[(.*?)\]", assets()["console.mjs"].content.decode())
    assert listed is not None
    assert set(re.findall(r'"(\w+)"', listed[1])) == set(get_args(EventKind))


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_every_form_that_changes_something_carries_the_token(file: Path) -> None:
    for form in re.findall(r'<form method="post".*?</form>', file.read_text(), re.DOTALL):
        assert 'name="csrf"' in form or "{{ token() }}" in form or file.name == "login.html", form[:100]


@pytest.mark.parametrize("file", STATIC, ids=lambda file: file.name)
def test_static_files_name_no_other_host(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert re.search(r"https?://|@import|url\(", text) is None


def test_the_look_and_the_script_stay_small() -> None:
    assert len(gzip.compress(assets()["console.css"].content)) <= 6_000
    script = assets()["console.mjs"].content
    assert script.count(b"\n") < 300
    assert b"innerHTML =" not in script
    assert b"eval(" not in script


def test_the_name_of_a_static_file_follows_its_content() -> None:
    for plain, asset in assets().items():
        stem, _, ending = plain.rpartition(".")
        assert re.fullmatch(rf"{stem}\.[0-9a-f]{{12}}\.{ending}", asset.name)
        assert gzip.decompress(asset.packed) == asset.content
