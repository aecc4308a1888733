"""What is typed wrongly at `deploy`, `rollback` and `rollout` is a usage error that says what to type instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.cli.rolloutoptions import AmountType, BatchType, PauseType, options_again, rollout_options
from deploykit.errors import DeploykitError
from deploykit.fleet.options import Amount, RolloutOptions
from deploykit.names import NodeName
from deploykit.trust.keyfiles import generate_key, trust


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a machine that may ask, with a broker that is not there."""
    key = generate_key(tmp_path / "ops.key")
    trust(tmp_path / "allowed_signers", "ops@example.org", key.public_blob)
    path = tmp_path / "deploykit.toml"
    path.write_text(f"""
node = "hub"
state = "{tmp_path / "state"}"
signing_key = "{tmp_path / "ops.key"}"
broker = {{ address = "stomp://127.0.0.1:1", connect_timeout = 1 }}
outbox = {{ path = "{tmp_path / "spool"}" }}
trust = {{ allowed_signers = "{tmp_path / "allowed_signers"}" }}
""")
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(group, words)


def problem(*words: str) -> str:
    """What a command that must be refused says; nothing may have been sent."""
    done = run(*words)
    if isinstance(done.exception, DeploykitError):
        assert done.exception.exit_code == 2, done.exception
        return str(done.exception)
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


COMMIT = "ab" * 20
TARGET = ("--ref", "refs/tags/v1", "--commit", COMMIT)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch", "ten"), "not a number of nodes: 'ten'"),
        (("--batch", "1,,2"), "not a number of nodes: ''"),
        (("--batch", "0"), "a batch has at least 1 node"),
        (("--batch", "1,0%"), "a batch has at least 1 node"),
        (("--first", "-1"), "not a number of nodes: '-1'"),
        (("--first", "101%"), "or 100%"),
        (("--max-failures", "1.5"), "expected a number or a percentage: 3, 10%"),
        (("--pause", "a while"), "neither a number of seconds nor `ask`"),
        (("--pause", "nan"), "neither a number of seconds nor `ask`"),
        (("--bake", "-1"), "not a number of seconds"),
        (("--timeout", "0"), "not a number of seconds"),
        (("--timeout", "inf"), "not a number of seconds"),
        (("--prepare", "some"), "'some' is not one of 'all', 'batch'"),
        (("--on-failure", "panic"), "'panic' is not one of"),
        (("--order", "size"), "'size' is not one of 'name', 'random'"),
        (("--seed", "7"), "add --order random"),
        (("--quorum", "50%", "--prepare", "batch"), "--prepare all"),
        (("--quorum", "0"), "quorum: expected at least 1 node"),
        (("--first", "1", "--first-select", "nginx"), "give one of them"),
        (("--first-select", "nginx and"), "--first-select: expected a class or a comparison, not the end"),
    ],
)
@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_options_that_make_no_rollout_are_refused(
    settings: Path, command: str, words: tuple[str, ...], says: str
) -> None:
    target = TARGET if command == "deploy" else ()
    assert says in problem(command, "shop", *target, "-I", "web1", *words, "--config", str(settings))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("deploy", "shop", *TARGET), "no nodes are chosen"),
        (("rollback", "shop"), "no nodes are chosen"),
        (("deploy", "shop", "-I", "web1"), "Missing option '--ref'"),
        (("deploy", "shop", *TARGET, "--all", "-I", "web1"), "--all means every node"),
        (("deploy", "shop", *TARGET, "-I", "web1", "--expect", "2"), "1 node matched, and --expect is 2"),
        (("deploy", "shop", *TARGET, "--retry-failed", "x", "-I", "web1"), "--retry-failed chooses the nodes itself"),
        (("deploy", "shop", *TARGET, "--retry-failed", "no-such"), "there is no rollout no-such"),
        (("deploy", "shop", *TARGET, "-S", "nginx and"), "-S: "),
        (("rollback", "shop", "--all", "--repo", "shop"), "--commit and --repo go with --to REF"),
        (("rollback", "shop", "--all", "--quorum", "50%"), "a rollback prepares nothing"),
        (("rollback", "shop", "--all", "--on-failure", "rollback"), "a rollback is not taken back"),
        (("deploy", "shop", "--retry-failed", "x", "--first-select", "nginx"), "give --first N"),
        (("deploy", "shop", "--retry-failed", "x", "--repo", "shop"), "leave --repo out"),
        (("rollout", "show"), "there is no rollout"),
        (("rollout", "show", "../../etc"), "not the id of a rollout"),
        (("rollout", "pause", "no-such"), "there is no rollout no-such"),
        (("rollout", "resume", "no-such"), "there is no rollout no-such"),
        (("rollout", "abort", "no-such"), "there is no rollout no-such"),
        (("rollout", "promote", "no-such"), "there is no rollout no-such"),
        (("rollout", "retry", "no-such"), "there is no rollout no-such"),
    ],
)
def test_what_addresses_nobody_is_refused(settings: Path, words: tuple[str, ...], says: str) -> None:
    assert says in problem(*words, "--config", str(settings))


def test_a_plan_is_printed_and_nothing_is_sent(settings: Path) -> None:
    nodes = [word for at in range(1, 8) for word in ("-I", f"web{at}")]
    options = ("--batch", "1,50%", "--max-failures", "1", "--pause", "ask", "--dry-run")
    done = run("deploy", "shop", *TARGET, *nodes, *options, "--config", str(settings))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "shop gets v1 (abababababab) on 7 nodes"  # what is not begun has no id to give
    assert [line.split() for line in lines[1:5]] == [
        ["canary:", "1", "web1"],
        ["batch", "1:", "1", "web2"],
        ["batch", "2:", "4", "web3,", "web4,", "web5,", "web6"],
        ["batch", "3:", "1", "web7"],
    ]
    assert "stops when more than 1 of 7 fail" in lines[5]
    assert "asks before each batch" in lines[5]
    assert lines[-1] == "nothing was sent"
    assert not (settings.parent / "state" / "rollouts").exists()


def test_a_plan_for_a_script_has_stages_targets_and_options(settings: Path) -> None:
    import json

    words = ("-I", "web2", "-I", "web1", "--dry-run", "--json", "--config", str(settings))
    plan = json.loads(run("deploy", "shop", *TARGET, *words).stdout)
    assert plan["stages"] == [{"stage": "canary", "nodes": ["web1"]}, {"stage": "1", "nodes": ["web2"]}]
    assert plan["targets"]["web2"] == {"ref": "refs/tags/v1", "commit": COMMIT, "parts": []}
    assert plan["options"]["batch"] == ["10%"]
    assert plan["kind"] == "deploy"


def test_a_list_of_no_rollouts_is_empty(settings: Path) -> None:
    done = run("rollout", "list", "--json", "--config", str(settings))
    assert (done.exit_code, done.stdout) == (0, "[]\n")


@pytest.mark.parametrize(
    "words",
    [
        ("deploy",),
        ("rollback",),
        *(("rollout", name) for name in ("list", "show", "pause", "resume", "promote", "abort", "retry")),
    ],
)
def test_each_help_page_has_an_example_of_itself(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"\n    deploykit {' '.join(words)}" in done.output


def test_deploy_and_rollback_have_the_same_options() -> None:
    own = {"deploy": {"ref", "retry_failed", "evidence", "without_build"}, "rollback": {"to"}}
    names = {
        command: {param.name for param in group.get_command(None, command).params} - own[command]  # type: ignore[arg-type, union-attr]
        for command in own
    }
    assert names["deploy"] == names["rollback"]
    assert {"first", "first_select", "batch", "quorum", "on_failure", "chosen_nodes", "dry_run"} <= names["deploy"]


def test_a_default_that_was_converted_is_converted_once_more() -> None:
    assert AmountType().convert(Amount(number=3), None, None) == Amount(number=3)
    assert BatchType().convert("1, 5,20%", None, None) == tuple(map(Amount.parse, ("1", "5", "20%")))
    assert BatchType().convert((Amount(number=1),), None, None) == (Amount(number=1),)
    assert PauseType().convert("2.5", None, None) == 2.5


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), {}),
        (("--timeout", "60"), {"timeout": 60.0}),
        (("--max-failures", "0"), {"max_failures": Amount(number=0)}),
        (("--first", "2"), {"first": Amount(number=2), "first_nodes": None}),
        (("--order", "name"), {"order": "name", "seed": None}),
        (("--prepare", "batch"), {"prepare": "batch", "quorum": None}),
    ],
)
def test_a_retry_keeps_each_option_that_is_not_given_anew(words: tuple[str, ...], changes: dict[str, Any]) -> None:
    earlier = RolloutOptions(
        first_nodes=frozenset({NodeName("web1")}),
        max_failures=Amount(number=2),
        on_failure="rollback",
        order="random",
        seed=7,
        quorum=Amount(number=50, percent=True),
    )
    found: list[RolloutOptions] = []

    @click.command()
    @rollout_options
    @click.pass_context
    def again(ctx: click.Context, /, **given: Any) -> None:
        found.append(options_again(ctx, given, earlier))

    done = CliRunner().invoke(again, words)
    assert done.exit_code == 0, done.output
    assert found == [attrs.evolve(earlier, **changes)]
    assert found[0].problems() == ()
