"""`deploykit nodes --test`, and the options that choose nodes, as a person and as a script use them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from deploykit.cli.nodes import nodes
from deploykit.cli.selecting import selection_from, selection_options
from deploykit.errors import DeploykitError, InvalidName, SelectorError, UsageError
from deploykit.fleet.selection import Selection
from tests.support.cli import run
from tests.support.selecting import GOLDEN


@pytest.fixture
def described(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "facts.json").write_text(json.dumps(dict(GOLDEN.facts)))
    (tmp_path / "classes.txt").write_text("# puppet\n" + "\n".join(GOLDEN.classes))
    return (
        "--test", "--identity", GOLDEN.node, "--facts", str(tmp_path / "facts.json"),
        "--classes", str(tmp_path / "classes.txt"),
    )  # fmt: skip


def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(nodes, list(words), input=stdin)
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def refusal(*words: str, stdin: str | bytes | None = None) -> DeploykitError:
    error = invoke(*words, stdin=stdin).exception
    assert isinstance(error, DeploykitError)
    assert error.exit_code == 2
    return error


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-S", "nginx and env=live"], 0, "matches: -S nginx and env=live is true"),
        (["-S", "nginx and not env=live"], 1, "does not match: -S env=live is true: env is 'live'"),
        (["-F", "uptime>9"], 0, "matches: -F uptime>9 is true: uptime is '10'"),
        (["-F", "nosuch!=x"], 1, "does not match: -F nosuch!=x is false: no fact nosuch"),
        (["-C", "Nginx"], 1, "does not match: -C Nginx is false: none of 3 classes"),
        (["-I", r"/^web\d+\./"], 0, r"matches: -I /^web\d+\./ is true: node is web01.example.net"),
        (["-I", "web02", "--node", "web01.example.net"], 0, "matches: -I web01.example.net is true"),
        (["-I", "web01"], 1, "does not match: -I web01 is false"),
        (["-I", "/WEB/"], 1, "does not match: -I /WEB/ is false"),
        (["-C", "nginx", "-C", "apache", "-F", "env=live", "-S", "roles=web", "-I", "web0*"], 0, "matches"),
        (["--class", "nginx", "--fact", "env=stage", "--select", "nginx"], 1, "does not match: -F env=stage is false"),
        (["--all"], 0, "matches: --all is true"),
        (["--all", "--exclude", "web0*"], 1, "does not match: --exclude web0* is true"),
    ],
)
def test_whether_a_node_matches_and_why(described: tuple[str, ...], words: list[str], code: int, says: str) -> None:
    result = invoke(*described, *words)
    assert result.exit_code == code
    assert result.stdout.startswith(f"web01.example.net {says}")


def test_as_json(described: tuple[str, ...]) -> None:
    result = invoke(*described, "-S", "not env=/li/", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "node": "web01.example.net",
        "matches": False,
        "term": "-S env=/li/",
        "holds": True,
        "found": "env is 'live'",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-S", "nginx AND env=live"], "-S: expected `and`, `or` or the end, not `AND` at character 7"),
        (["-F", "env"], "-F: expected an operator after env"),
        (["-S", ""], "-S: expected a class or a comparison, not the end"),
        ([], "no nodes are chosen"),
        (["--all", "-C", "nginx"], "--all means every node"),
        (["--all", "--expect", "1"], "--expect counts nodes, and --test looks at one"),
    ],
)
def test_what_is_no_selector_is_wrong_usage(described: tuple[str, ...], words: list[str], says: str) -> None:
    assert str(refusal(*described, *words)).startswith(says)


def test_a_node_needs_a_name_and_may_do_without_files() -> None:
    assert "--identity NAME" in str(refusal("--test", "--all"))
    assert isinstance(refusal("--test", "--all", "--identity", "../x"), InvalidName)
    assert invoke("--test", "--all", "--identity", "web1").exit_code == 0
    assert invoke("--test", "-S", "a or b=c", "--identity", "web1").exit_code == 1


def test_files_that_do_not_hold_what_they_should_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"\xff")
    missing = tmp_path / "missing"
    for option in ("--facts", "--classes"):
        assert "x is not UTF-8" in str(refusal("--test", "--all", "--identity", "web1", option, str(file)))
        assert "cannot read" in str(refusal("--test", "--all", "--identity", "web1", option, str(missing)))


def test_facts_may_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text("env: live\nos:\n  name: Debian\n")
    test = ("--test", "--identity", "web1", "--facts", str(file))
    assert invoke(*test, "-F", "os.name=Debian").exit_code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "yaml", None)
        assert "pip install deploykit[yaml]" in str(refusal(*test, "-F", "env=live"))


@pytest.mark.parametrize("body", ["# shop\nweb1 # rack 3\nweb2\n", '["web1", "web2"]', '[{"node": "web1"}]'])
def test_a_list_of_nodes_from_a_file_or_standard_input(tmp_path: Path, body: str) -> None:
    file = tmp_path / "nodes"
    file.write_text(body)
    for name, code in (("web1", 0), ("web3", 1)):
        assert invoke("--test", "--identity", name, "--nodes", str(file)).exit_code == code
        assert invoke("--test", "--identity", name, "--nodes", "-", stdin=body).exit_code == code


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "standard input names no node"),
        (b"\x00\xff", "is not UTF-8"),
        (b"[" * 9999, "begins like JSON and is none"),
    ],
)
def test_a_list_that_is_none_is_refused(body: bytes, says: str) -> None:
    assert says in str(refusal("--test", "--identity", "web1", "--nodes", "-", stdin=body))


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    assert f"cannot read the list of nodes {gone}" in str(refusal("--test", "--identity", "x", "--nodes", gone))


def test_other_commands_get_a_selection() -> None:
    got: list[Selection] = []

    @click.command()
    @selection_options
    @click.option("--other")
    def command(**given: object) -> None:
        got.append(selection_from(given))

    words = "-I a -I b* -C c -F d=1 -S e --exclude f --expect 3 --other x"
    CliRunner().invoke(command, words.split(), catch_exceptions=False)
    assert got == [
        Selection(identities=("a", "b*"), classes=("c",), facts=("d=1",), selects=("e",), exclude=("f",), expect=3)
    ]
    with pytest.raises(UsageError, match="no nodes are chosen"):
        CliRunner().invoke(command, [], catch_exceptions=False)


def test_a_user_sees_one_line_and_an_exit_code(described: tuple[str, ...]) -> None:
    """In a process of its own: no settings file, no bus, no traceback."""
    done = run("nodes", *described, "-S", "nginx && env=live")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "at character 7 of `nginx && env=live` (write `and`)" in done.stderr
    done = run("nodes", *described, "-F", "processorcount>10")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "web01.example.net does not match: -F processorcount>10 is false: processorcount is '9'\n"
    assert run("nodes", *described, "--all").returncode == 0
    assert SelectorError("x").exit_code == 2
