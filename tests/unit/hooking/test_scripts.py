"""The four committed hook scripts are what the template and the table make; each is known as ours."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.errors import UsageError
from deploykit.hooking import scripts

HOOKS = Path(__file__).parents[3] / "hooks"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A hooks directory of our own to spoil."""
    shutil.copytree(HOOKS, tmp_path / "hooks")
    return tmp_path / "hooks"


def shipped() -> list[Path]:
    """All hook scripts as they are shipped."""
    return [scripts.hooks_dir() / script.file for script in scripts.SCRIPTS.values()]


def test_the_committed_scripts_are_what_the_template_makes() -> None:
    """After a change of template or table: python -m deploykit.hooking.scripts --write hooks"""
    assert scripts.outdated(HOOKS) == []
    assert {p for p in HOOKS.glob("*/*") if p.is_file()} == set(scripts.rendered(HOOKS))


@pytest.mark.parametrize("name", [script.file for script in scripts.SCRIPTS.values()])
@pytest.mark.parametrize("spoil", ["text", "mode", "gone"])
def test_a_script_that_was_edited_is_found_and_written_again(copy: Path, name: str, spoil: str) -> None:
    script = copy / name
    good = script.read_text()
    if spoil == "text":
        script.write_text(good.replace("code = queue(data)", "code = 0"))
    elif spoil == "mode":
        script.chmod(0o644)
    else:
        script.unlink()
    assert scripts.outdated(copy) == [script]
    command = [sys.executable, "-m", "deploykit.hooking.scripts"]
    checked = subprocess.run([*command, "--check", copy], capture_output=True, text=True, check=False)
    assert (checked.returncode, str(script) in checked.stderr) == (1, True)
    subprocess.run([*command, "--write", copy], check=True)
    assert subprocess.run([*command, "--check", copy], check=False).returncode == 0
    assert (script.read_text(), script.stat().st_mode & 0o777) == (good, 0o755)


def test_a_template_that_was_edited_makes_every_script_outdated(copy: Path) -> None:
    template = copy / scripts.TEMPLATE
    template.write_text(template.read_text() + "# more\n")
    assert scripts.outdated(copy) == list(scripts.rendered(copy))


@pytest.mark.parametrize("text", ['KIND = "git"\n' * 2, '"""Doc."""\nKIND = "svn"\n', '"""Doc.\n'])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not the template of the hooks"):
        scripts.render("svn", text)


def test_all_scripts_have_the_same_body() -> None:
    bodies = set()
    for script in shipped():
        _, _, body = script.read_text().partition("\nimport os\n")
        bodies.add(re.sub(r'^KIND = "\w+"$', "", body, count=1, flags=re.MULTILINE))
    assert len(bodies) == 1


def test_every_script_says_what_it_is_and_is_known_as_ours() -> None:
    for (kind, row), script in zip(scripts.SCRIPTS.items(), shipped(), strict=True):
        text = script.read_text()
        assert scripts.is_ours(script)
        assert os.access(script, os.X_OK)
        assert text.startswith(f"#!/usr/bin/env python3\n# deploykit hook: {kind}\n")
        assert f'\nKIND = "{kind}"\n' in text
        assert (ast.get_docstring(ast.parse(text), clean=False) or "") == row.text


def test_a_script_of_an_older_version_is_known_as_ours() -> None:
    assert scripts.is_ours(HOOKS.parent / "tests" / "data" / "hooks-v1" / "post-receive")
