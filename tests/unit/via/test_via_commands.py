"""`--via` as a person types it, against the API over real HTTP: actions are fixed, and what is asked is recorded."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.errors import ActionRefused, DeploykitError
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.rollout import RolloutModel
from deploykit.messages import utc_now
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.mandatefiles import mandate_frame
from deploykit.trust.keyfiles import generate_key
from deploykit.via.follower import RolloutFollower
from deploykit.web.actions.asked import ControlAsked, DeployAsked, NodesAsked, OptionsAsked, RollbackAsked
from deploykit.web.actions.shown import PlanShown, ProposalShown
from deploykit.web.viewer import Viewer
from tests.support.consoleserver import api_alone, serving
from tests.support.endingconsole import Console


@pytest.fixture
def console() -> Iterator[Console]:
    made = Console(now=utc_now())
    with serving(api_alone(made.queries, actions=made.console)) as server:
        made.url = server.url.rstrip("/")
        yield made


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("DEPLOYKIT_VIA_TOKEN_FILE", raising=False)


def run(*words: object, input: str | None = None) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words], input=input)
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def error_of(result: Result) -> DeploykitError:
    assert isinstance(result.exception, DeploykitError), result.output
    return result.exception


# -- deploy and rollback -----------------------------------------------------------------------------------------------


def test_where_no_people_are_needed_it_starts_with_the_consoles_key(console: Console) -> None:
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "-I", "web-2", "--via", console.url)
    assert done.exit_code == 0, done.output
    asked = console.calls("begin")[0][0]
    assert isinstance(asked, DeployAsked)
    assert asked.chosen == NodesAsked(nodes=("web-1", "web-2"))
    assert not asked.approval
    assert asked.plan, "what is carried out is what was shown"
    assert "web-1" in done.output
    assert "succeeded" in done.output


def test_what_is_typed_becomes_what_is_asked(console: Console) -> None:
    run(
        *("deploy", "shop", "--ref", "v2.4.1", "--select", "web-*", "--commit", "1" * 40, "--first", "2"),
        *("--batch", "1,10%", "--max-failures", "1", "--pause", "ask", "--on-failure", "rollback", "--order", "random"),
        *("--timeout", "60", "--reason", "carts", "--dry-run", "--via", console.url),
    )
    (asked,) = console.calls("plan")[0]
    assert asked == DeployAsked(
        site="shop",
        ref="v2.4.1",
        commit="1" * 40,
        chosen=NodesAsked(select="web-*"),
        options=OptionsAsked(
            first="2",
            batch=("1", "10%"),
            max_failures="1",
            pause="ask",
            on_failure="rollback",
            order="random",
            timeout="60.0",
        ),
        reason="carts",
    )
    assert console.calls("begin") == []


def test_what_is_not_typed_is_left_to_the_console(console: Console) -> None:
    run("deploy", "shop", "--ref", "v2.4.1", "--all", "--dry-run", "--via", console.url)
    assert console.calls("plan") == [(DeployAsked(site="shop", ref="v2.4.1", chosen=NodesAsked(everybody=True)),)]


def test_a_list_of_nodes_goes_no_further_than_the_list(console: Console, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("web-1\nweb-3\n")
    run("deploy", "shop", "--ref", "v2.4.1", "--nodes", tmp_path / "list", "--dry-run", "--via", console.url)
    assert console.calls("plan")[0][0] == DeployAsked(
        site="shop", ref="v2.4.1", chosen=NodesAsked(exactly=("web-1", "web-3"))
    )


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--bake", "5"), "--bake"),
        (("--prepare", "batch"), "--prepare"),
        (("--exclude", "web-1"), "--exclude"),
        (("-C", "a and b"), "-C"),
        (("-C", "!nginx"), "-C"),
        (("-C", "not"), "-C"),
        (("-F", "os=Debian 12"), "-F"),
        (("--expect", "9"), "--expect"),
        (("--propose", "--approve-with", "key"), "--propose"),
    ],
)
def test_what_a_console_cannot_do_is_refused_and_nothing_begins(
    console: Console, words: tuple[str, ...], names: str
) -> None:
    chosen = () if {"-C", "-F"} & {*words} else ("--select", "web-*")
    done = run("deploy", "shop", "--ref", "v2.4.1", *chosen, *words, "--via", console.url)
    assert names in str(error_of(done))
    assert error_of(done).exit_code == 2
    assert console.calls("begin") == []


def test_classes_and_facts_become_one_selector(console: Console) -> None:
    chosen = ("-C", "nginx", "-F", "env=live", "-S", "a or b")
    run("deploy", "shop", "--ref", "v2.4.1", *chosen, "--dry-run", "--via", console.url)
    asked = console.calls("plan")[0][0]
    assert isinstance(asked, DeployAsked)
    assert asked.chosen.select == "nginx and env=live and (a or b)"


def test_the_exit_code_is_that_of_the_rollout(console: Console) -> None:
    console.ends = "failed"
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    assert done.exit_code == 1
    assert "exit 2" in done.output


def test_a_script_reads_lines_of_json(console: Console) -> None:
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines
    assert done.exit_code == 0


def test_nodes_that_are_left_out_make_it_1(console: Console) -> None:
    done = run("deploy", "shop", "--ref", "v2.4.1", "--all", "--via", console.url)
    assert done.exit_code == 1
    assert "web-4: did not answer" in done.output


def test_a_refusal_of_the_console_is_an_error_of_the_command(console: Console) -> None:
    done = run("deploy", "shop", "--ref", "nope", "--all", "--via", console.url)
    assert "there is no ref 'nope'" in str(error_of(done))
    console.refusals["begin"] = ActionRefused("rollout r-9 of shop runs, started by ada", status=409)
    done = run("deploy", "shop", "--ref", "v2.4.1", "--all", "--via", console.url)
    assert "started by ada" in str(error_of(done))


def test_a_rollback_asks_for_one(console: Console) -> None:
    done = run("rollback", "shop", "-I", "web-1", "--via", console.url)
    assert done.exit_code == 0, done.output
    asked = console.calls("begin")[0][0]
    assert isinstance(asked, RollbackAsked)
    assert asked.chosen.nodes == ("web-1",)
    assert "its previous release" in done.output


def test_ctrl_c_leaves_the_rollout_to_the_console(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: RolloutFollower) -> RolloutModel:
        raise KeyboardInterrupt

    monkeypatch.setattr(RolloutFollower, "follow", interrupted)
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    assert done.exit_code == 130
    assert "the console goes on with rollout" in done.output
    assert f"--via {console.url}" in done.output


# -- signing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


def test_with_a_key_the_mandate_is_signed_here_and_only_the_signature_goes(
    console: Console, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed: list[ProposalShown] = []
    original = Console._proposed

    def kept(self: Console, *args: Any) -> ProposalShown:
        proposed.append(original(self, *args))
        return proposed[-1]

    monkeypatch.setattr(Console, "_proposed", kept)
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url, "--approve-with", key, "-y")
    assert done.exit_code == 0, done.output
    asked = console.calls("begin")[0][0]
    assert isinstance(asked, DeployAsked)
    assert asked.approval, "a key is given: people sign"
    signature = str(console.calls("sign")[0][1])
    body = base64.b64decode(proposed[0].body)
    held = HeldMandate.of_frame(mandate_frame(body, signature))
    (shown_here,) = ApprovalDesk.from_settings(None).sheet(held, utc_now()).signatures
    assert shown_here.fits, "the signature is over the very bytes of the proposal"
    assert "PRIVATE" not in repr(console.asked)
    for shown in ("commit", "web-1", proposed[0].commit):
        assert shown in done.output
    assert "succeeded" in done.output


def test_without_a_key_it_waits_for_people_and_says_how(console: Console) -> None:
    console.needs["shop"] = 2
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    assert done.exit_code == 0, done.output
    (rollout,) = console.waiting
    assert f"deploykit approve {rollout} --via {console.url}" in done.output
    assert f"{console.url}/deploys/{rollout}/approve" in done.output


def test_a_console_that_proposes_another_commit_gets_no_signature(
    console: Console, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Console._proposed

    def swapped(self: Console, viewer: Viewer, rollout: str, plan: PlanShown, reason: str) -> ProposalShown:
        return original(self, viewer, rollout, attrs.evolve(plan, commit="e" * 40), reason)

    monkeypatch.setattr(Console, "_proposed", swapped)
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url, "--approve-with", key, "-y")
    assert "another thing than what was asked for" in str(error_of(done))
    assert error_of(done).exit_code == 3
    assert console.calls("sign") == []


def test_approve_shows_the_bytes_and_signs_them(console: Console, key: Path) -> None:
    console.needs["shop"] = 1
    run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url, "--reason", "carts")
    (rollout,) = console.waiting
    shown = run("approve", "last", "--via", console.url, "--no-sign")
    assert "carts" in shown.output
    assert "nothing was signed" in shown.output
    assert console.calls("sign") == []
    nobody = run("approve", rollout, "--via", console.url, "--key", key)
    assert "nobody to ask" in str(error_of(nobody))
    done = run("approve", rollout, "--via", console.url, "--key", key, "-y")
    assert done.exit_code == 0, done.output
    assert "All have signed" in done.output
    assert console.calls("sign")[0][0] == rollout


def test_approve_of_what_does_not_wait_is_an_error(console: Console, key: Path) -> None:
    assert "there is no deploy" in str(error_of(run("approve", "r-7", "--via", console.url, "--key", key, "-y")))
    assert "no proposal waits" in str(error_of(run("approve", "last", "--via", console.url)))


# -- rollout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("pause",), ControlAsked(kind="pause")),
        (("resume",), ControlAsked(kind="resume")),
        (("promote",), ControlAsked(kind="promote")),
        (("abort",), ControlAsked(kind="abort")),
        (("abort", "--rollback"), ControlAsked(kind="abort", rollback=True)),
    ],
)
def test_what_is_asked_of_a_rollout_goes_to_the_console(
    console: Console, words: tuple[str, ...], asked: ControlAsked
) -> None:
    done = run("rollout", words[0], "r-1", *words[1:], "--via", console.url)
    assert done.exit_code == 0, done.output
    assert console.calls("control") == [("r-1", asked)]


def test_list_and_show_are_what_the_console_heard(console: Console) -> None:
    run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    console.needs["shop"] = 1
    run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-2", "--via", console.url)
    (waiting,) = console.waiting
    listed = run("rollout", "list", "--via", console.url).output
    assert waiting in listed
    assert "succeeded" in listed
    entries = json.loads(run("rollout", "list", "--via", console.url, "--json").output)
    assert [entry["state"] for entry in entries] == ["proposed", "succeeded"]
    shown = run("rollout", "show", "last", "--via", console.url)
    assert shown.exit_code == 0
    assert "web-1  active" in shown.output
    assert run("rollout", "show", "last", "--list", "active", "--via", console.url).output == "web-1\n"
    assert json.loads(run("rollout", "show", "last", "--via", console.url, "--json").output)["exit_code"] == 0


def test_an_abort_of_a_proposal_withdraws_it(console: Console) -> None:
    console.needs["shop"] = 1
    run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    (rollout,) = console.waiting
    assert "withdrawn" in run("rollout", "abort", rollout, "--via", console.url).output
    assert not console.waiting


def test_a_retry_is_planned_and_begun_there(console: Console) -> None:
    done = run("rollout", "retry", "r-1", "--via", console.url)
    assert done.exit_code == 0, done.output
    assert console.calls("plan_retry") == [("r-1",)]
    assert console.calls("retry")[0][0] == "r-1"
    assert console.calls("retry")[0][1], "the plan that was shown"


# -- which console -----------------------------------------------------------------------------------------------------


def test_the_settings_name_the_console_and_a_dash_leaves_it(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "here"\nstate = "{tmp_path}/state"\n[via]\nurl = "{console.url}"\n')
    file.chmod(0o600)
    assert run("rollout", "pause", "r-1", "--config", file).exit_code == 0
    assert console.calls("control")
    done = run("rollout", "pause", "r-1", "--config", file, "--via", "-")
    assert "r-1" in str(error_of(done))
    assert len(console.calls("control")) == 1


def test_the_token_of_the_settings_goes_to_no_other_console(console: Console, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("dk_secret")
    token.chmod(0o644)  # it would be refused if it were read
    file = tmp_path / "deploykit.toml"
    file.write_text(
        f'node = "here"\nstate = "{tmp_path}/s"\n[via]\nurl = "https://other.example"\ntoken_file = "{token}"\n'
    )
    file.chmod(0o600)
    assert run("rollout", "pause", "r-1", "--config", file, "--via", console.url).exit_code == 0
    assert "via.token_file" in str(error_of(run("rollout", "pause", "r-1", "--config", file)))


def test_a_wrong_file_of_a_token_is_named_as_it_was_given(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, pause = tmp_path / "none", ("rollout", "pause", "r-1", "--via", console.url)
    assert str(error_of(run(*pause, "--via-token", there))).startswith("--via-token: cannot read")
    monkeypatch.setenv("DEPLOYKIT_VIA_TOKEN_FILE", str(there))
    assert str(error_of(run(*pause))).startswith("DEPLOYKIT_VIA_TOKEN_FILE: cannot read")


def test_plain_http_to_another_machine_is_refused() -> None:
    done = run("rollout", "list", "--via", "http://deploy.example.org")
    assert "plain http only to this machine" in str(error_of(done))
    assert error_of(done).exit_code == 2


def test_a_token_without_a_console_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "here"\nstate = "{tmp_path}/state"\n')
    file.chmod(0o600)
    done = run("rollout", "list", "--config", file, "--via-token", file)
    assert "--via-token goes with --via" in str(error_of(done))
