"""`nodes`, `status --all` and `history` as an operator and a script meet them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploykit.broker.server import EmbeddedBroker
from deploykit.cli import group
from deploykit.cli.asking import print_table
from deploykit.errors import ConnectError, DeploykitError, PolicyRefused, UsageError
from deploykit.messages import AgentInstance, NodeDescribed, SiteOperation, SiteRelease, SiteState
from deploykit.names import ObjectId, RefName, RepoName, SiteName
from tests.support.cli import run_here
from tests.support.responders import STRANGER, Reply, Responders, asker_settings, described, end_with_the_answers

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
V1 = SiteRelease(release="r1", ref=RefName("refs/tags/v1"), commit=ObjectId("1" * 40))
V2 = SiteRelease(release="r2", ref=RefName("refs/tags/v2"), commit=ObjectId("2" * 40))


@pytest.fixture(autouse=True)
def _all_answers_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    end_with_the_answers(monkeypatch)


@pytest.fixture
def fleet(deploykit_broker: EmbeddedBroker) -> Iterator[list[Reply]]:
    replies: list[Reply] = []
    with Responders(deploykit_broker.address, lambda question: replies):
        yield replies


@pytest.fixture
def config(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Path:
    return asker_settings(tmp_path, deploykit_broker.address)


def web(name: str, live: SiteRelease = V2, *, signatures: int = 1, **changes: object) -> NodeDescribed:
    state = SiteState(
        site=SiteName("shop"),
        repo=RepoName("shop"),
        release=live.release,
        ref=live.ref,
        commit=live.commit,
        since=START,
        previous=V1 if live == V2 else None,
        signatures=signatures,
        history=(
            SiteOperation(
                number=1,
                phase="deploy",
                outcome="success",
                ref=live.ref,
                commit=live.commit,
                started=START,
                requested_by="ada",
                rollout="rollout-1",
            ),
        ),
    )
    return described(name, classes=("web",), version="1.0", sites=(state,), **changes)


def deploykit(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(group, [*words, "--config", str(config)])
    if isinstance(result.exception, DeploykitError):
        raise result.exception
    return result


def test_nodes_prints_columns_for_a_pipe(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web2", live=V1), web("web1"), described("db1")]
    result = deploykit(config, "nodes")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NODE  STATE  VERSION  HOST  SITES",
        "db1   ok     -        db1   -",
        "web1  ok     1.0      web1  shop v2 222222222222",
        "web2  ok     1.0      web2  shop v1 111111111111",
    ]


def test_silent_unexpected_unbelieved_and_twin_nodes_stand_in_the_table(
    config: Path, fleet: list[Reply], tmp_path: Path
) -> None:
    listed = tmp_path / "nodes.txt"
    listed.write_text("web1\nweb2 # the old one\nweb3\n")
    fleet += [web("web9"), web("web1", twins=(AgentInstance(instance="z", host="copy"),)), (web("web3"), STRANGER)]
    result = deploykit(config, "nodes", "--nodes", str(listed), "--discovery-timeout", "60")
    assert result.exit_code == 1
    rows = {line.split()[0]: " ".join(line.split()[1:3]) for line in result.stdout.splitlines()}
    assert rows == {
        "NODE": "STATE VERSION",
        "web1": "2 agents",
        "web2": "silent -",
        "web3": "not believed",
        "web9": "unexpected 1.0",
    }
    assert "deploykit: 2 agents answer under the name web1" in result.stderr
    assert "web3 was not believed" in result.stderr


def test_two_agents_under_one_name_are_not_well(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1", twins=(AgentInstance(instance="z", host="copy"),)), web("web2")]
    assert deploykit(config, "nodes", "-I", "web1").exit_code == 1
    assert deploykit(config, "nodes", "-I", "web2").exit_code == 0


def test_nodes_as_json_is_what_nodes_reads_again(config: Path, fleet: list[Reply], tmp_path: Path) -> None:
    fleet += [web("web1"), web("web2"), described("db1")]
    result = deploykit(config, "nodes", "-C", "web", "--json")
    found = json.loads(result.stdout)
    assert [each["node"] for each in found["nodes"]] == ["web1", "web2"]
    assert found["nodes"][0]["sites"][0]["previous"]["commit"] == "1" * 40
    assert (found["answered"], found["silent"], found["doubts"], found["twins"]) == (3, [], {}, {})
    listed = tmp_path / "found.json"
    listed.write_text(result.stdout)
    again = deploykit(config, "nodes", "-C", "web", "--nodes", str(listed), "--names")
    assert (again.exit_code, again.stdout) == (0, "web1\nweb2\n")


def test_all_that_a_node_said_is_shown_on_demand(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1", facts={"env": "live", "cores": 4, "os": {"name": "Debian"}}, cut=("2 facts",))]
    result = deploykit(config, "nodes", "-I", "web1", "-I", "web2", "--long", "--discovery-timeout", "60")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "web1",
        "  agent    run-of-web1 on web1, deploykit 1.0",
        "  class    web",
        "  fact     env = live",
        "  fact     cores = 4",
        '  fact     os = {"name": "Debian"}',
        "  site     shop v2 222222222222 since 2026-03-01 12:00:00Z",
        "  previous shop v1 111111111111",
        "  left out 2 facts",
    ]
    assert result.stderr.splitlines()[-1] == "deploykit: web2 is silent"


def test_nothing_that_matches_is_a_failure(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1")]
    result = deploykit(config, "nodes", "-C", "nosuch")
    assert (result.exit_code, result.stderr) == (1, "deploykit: 1 node answered, and it does not match\n")
    with pytest.raises(UsageError, match="--expect is 2"):
        deploykit(config, "nodes", "-C", "web", "--expect", "2")


def test_status_of_the_fleet_shows_the_drift_of_each_site(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web2", live=V1), web("web3")]
    result = deploykit(config, "status", "--all")
    assert result.exit_code == 1
    head, _, *rows = result.stdout.splitlines()
    assert (
        head == "shop: 2 current, 1 outdated; current is v2 222222222222 (what most nodes have live, on 2 of 3 nodes)"
    )
    assert [row.split()[:2] for row in rows] == [["web1", "current"], ["web2", "outdated"], ["web3", "current"]]
    assert deploykit(config, "status", "-I", "web1").exit_code == 0


def test_status_of_the_fleet_as_json(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web2", live=V1)]
    result = deploykit(config, "status", "--site", "shop", "--ref", "v1", "--json")
    assert result.exit_code == 1
    (shop,) = json.loads(result.stdout)["sites"]
    assert shop["current"] == {
        "ref": "refs/tags/v1",
        "commit": "1" * 40,
        "reason": "asked for, as a node has it live",
        "parts": [],
    }
    assert shop["counts"] == {"current": 1, "other": 1}
    assert [(each["node"], each["drift"]) for each in shop["nodes"]] == [("web1", "other"), ("web2", "current")]


def test_history_merges_the_journals(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web2", live=V1)]
    result = deploykit(config, "history", "shop", "-n", "5")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:6] == ["2026-03-01", "12:00:00Z", "web2", "deploy", "success", "v1"]
    found = json.loads(deploykit(config, "history", "shop", "-I", "web1", "-I", "web2", "--json").stdout)
    assert {(each["node"], each["rollout"]) for each in found["operations"]} == {
        ("web1", "rollout-1"),
        ("web2", "rollout-1"),
    }


def test_texts_of_nodes_never_reach_a_terminal_raw(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1", host="\x1b[31mred\x1b[0m", cut=("\x1b]0;title\x07",))]
    for words in ((), ("--long",), ("--json",)):
        assert "\x1b" not in deploykit(config, "nodes", "-I", "web1", *words).output


def test_on_a_terminal_it_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    print_table(("node", "host"), [("web1", "[red]x[/red]\x1b[31m")])
    text = shown.getvalue()
    assert "[red]x[/red]\\x1b" in text
    assert "NODE" not in text


@pytest.mark.parametrize(
    "words",
    [("deploy", "shop", "--ref", str(V1.ref), "--commit", str(V1.commit), "--all"), ("rollback", "shop", "--all")],
)
def test_what_a_node_wants_signed_is_not_sent_without_by_a_machine_that_does_not_know_the_site(
    config: Path, fleet: list[Reply], words: tuple[str, ...]
) -> None:
    fleet += [web("web1"), web("web2", signatures=2)]
    with pytest.raises(PolicyRefused, match="site shop asks for 2 people's signatures"):
        deploykit(config, *words)
    result = deploykit(config, *words, "--propose")
    assert "signed by 2 different people: so say web2" in result.stderr
    assert "site asks  2 people's signatures" in result.stdout
    again = deploykit(config, "rollout", "show", "last")
    assert "site asks  2 people's signatures" in again.stdout, "the proposal keeps it"


def test_without_a_key_or_trusted_keys_nobody_is_asked(tmp_path: Path) -> None:
    config = asker_settings(tmp_path, "stomp://127.0.0.1:1")
    text = config.read_text()
    for line, says in (("signing_key", "unsigned"), ("allowed_signers", "no node's report")):
        config.write_text("\n".join(each for each in text.splitlines() if not each.startswith(line)))
        with pytest.raises(PolicyRefused, match=says):
            deploykit(config, "nodes")


def test_no_broker_is_an_error_in_seconds(tmp_path: Path) -> None:
    config = asker_settings(tmp_path, "stomp://127.0.0.1:1")
    config.write_text(config.read_text().replace("connect_timeout = 60", "connect_timeout = 1"))
    with pytest.raises(ConnectError, match="no broker reachable"):
        deploykit(config, "nodes")


def test_exclude_without_a_choice_is_no_question_to_this_node(config: Path) -> None:
    with pytest.raises(UsageError, match="--exclude"):
        deploykit(config, "status", "--exclude", "web1")


def test_the_command_ends_with_its_code_and_one_line(config: Path, fleet: list[Reply]) -> None:
    fleet += [web("web1")]
    done = run_here("nodes", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    nobody = run_here("status", "--config", str(config), "--all", "--site", "wiki")
    assert nobody.returncode == 1
    assert nobody.stderr == "deploykit: no node has site wiki (1 answered)\n"
