"""The page of an origin of its own: which files, to which console, and what its policy leaves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploykit.cli.web import web
from deploykit.errors import UsageError
from deploykit.web.pages.assets import assets
from deploykit.web.signing.alone import POLICY, sign_page, write_sign_page

CONSOLE = "https://deploy.example.org"


def test_every_file_is_named_by_its_content_and_pinned() -> None:
    files = sign_page(CONSOLE)
    page = files["index.html"].decode()
    pinned = dict(re.findall(r'(?:href|src)="(sign[^"]+)" integrity="sha384-([^"]+)"', page))
    assert set(pinned) == set(files) - {"index.html"}
    for name, digest in pinned.items():
        assert base64.b64encode(hashlib.sha384(files[name]).digest()).decode() == digest
        assert name.split(".")[1] == hashlib.sha256(files[name]).hexdigest()[:12]
    (script,) = (name for name in files if name.startswith("signpage"))
    (core,) = (name for name in files if name.startswith("sign.") and name.endswith(".mjs"))
    assert f'from "./{core}"'.encode() in files[script]


def test_a_module_of_the_console_imports_by_the_name_with_the_hash() -> None:
    name = assets()["sign.mjs"].name
    assert f'from "./{name}"'.encode() in assets()["signpage.mjs"].content


def test_the_page_names_one_console_and_nothing_else_outside() -> None:
    files = sign_page(f"{CONSOLE}/")
    page = files["index.html"].decode()
    assert f'data-console="{CONSOLE}"' in page
    assert f'content="{POLICY}"' in page
    for content in files.values():
        assert set(re.findall(rb"https?://[a-z]+(?:\.[a-z]+)*", content)) <= {CONSOLE.encode()}
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\bfetch\b|XMLHttp", content)


def test_the_headers_of_the_recipe_are_no_looser_than_the_page() -> None:
    recipe = Path(__file__).parents[4] / "contrib" / "nginx" / "sign-page.conf"
    assert f"\"{POLICY}; frame-ancestors 'none'\"" in recipe.read_text()


@pytest.mark.parametrize(
    "console",
    [
        "",
        "deploy.example.org",
        "http://deploy.example.org",
        f"{CONSOLE}/x",
        'https://a"b',
        "https://a b",
        "javascript:x",
    ],
)
def test_what_is_no_console_is_refused(console: str) -> None:
    with pytest.raises(UsageError, match="not the address of a console"):
        sign_page(console)


def test_the_files_are_written_and_readable(tmp_path: Path) -> None:
    written = write_sign_page(CONSOLE, tmp_path / "a" / "b")
    assert written[-1].name == "index.html"
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}
    with pytest.raises(UsageError, match="cannot be written"):
        write_sign_page(CONSOLE, written[0])


def test_the_command_writes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(web, ["sign-page", "--console", CONSOLE, "--write", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    assert answer["console"] == CONSOLE
    assert {Path(path).name for path in answer["files"]} == set(sign_page(CONSOLE))


def test_the_command_takes_the_console_of_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "deploykit.toml"
    settings.write_text(f'node = "ops-1"\n[web]\nurl = "{CONSOLE}"\n')
    argv = ["sign-page", "--write", str(tmp_path / "out"), "--config", str(settings)]
    done = CliRunner().invoke(web, argv)
    assert done.exit_code == 0, done.output
    assert f"signatures go to {CONSOLE}" in done.output
    settings.write_text('node = "ops-1"\n')
    done = CliRunner().invoke(web, argv)
    assert isinstance(done.exception, UsageError)
    assert "give --console" in str(done.exception)
