"""`deploykit access grant | revoke | list` against a real access daemon and a real agent on one node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploykit.broker.server import EmbeddedBroker
from deploykit.cli import group
from deploykit.errors import DeploykitError, NobodyMatches, UsageError
from deploykit.system.passwordfile import parse_passwords
from tests.support.accessworld import AccessWorld
from tests.support.daemon import RunningDaemon

#: Seconds for answers that are not to come.
SHORT = ("--discovery-timeout", "1", "--timeout", "1")


def run(world: AccessWorld, *words: str, key: str = "operator") -> Result:
    """Run the command with the desk's settings."""
    file = world.root / "desk.toml"
    file.write_text(
        f'node = "desk"\nstate = "{world.root}/desk"\nsigning_key = "{world.root}/{key}.key"\n'
        f'[broker]\naddress = "{world.settings.broker.address}"\n'
        f'[trust]\nallowed_signers = "{world.root}/allowed_signers"\n'
    )
    file.chmod(0o600)
    result = CliRunner().invoke(group, ["access", *words, "--config", str(file)])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[AccessWorld]:
    with AccessWorld(tmp_path, deploykit_broker.address) as made:
        yield made


def password_of(output: str) -> str:
    (found,) = re.findall(r"shown this once: (\S+)", output)
    return str(found)


def test_a_user_is_granted_listed_extended_and_revoked(world: AccessWorld) -> None:
    world.file.write_text("monitor:$apr1$x$y\n")
    with world.daemon(), world.agent():
        granted = run(world, "grant", "alice", "shop", "--until", "2h")
        assert granted.exit_code == 0, granted.output
        assert "web1: granted until" in granted.stdout
        first = password_of(granted.stdout)
        ours = "\n".join(line.rsplit(":", 1)[0] for line in world.file.read_text().splitlines() if "deploykit" in line)
        assert parse_passwords(ours).check("alice", first)

        rows = json.loads(run(world, "list", "shop", "--json").stdout)
        assert rows["protects"] == {"web1": ["shop"]}
        assert [(row["user"], row["nodes"]["web1"] is None) for row in rows["access"]] == [
            ("alice", False),
            ("monitor", True),
        ]
        table = run(world, "list")
        assert re.search(r"shop +monitor +never", table.stdout)

        extended = run(world, "grant", "alice", "shop", "--extend", "--until", "9d", "--json")
        answer = json.loads(extended.stdout)
        assert answer["done"] == ["web1"]
        assert "password" not in answer
        assert world.users() == ["monitor", "alice"]

        again = json.loads(run(world, "grant", "alice", "shop", "--node", "web1", "--json").stdout)
        assert again["password"] != first

        revoked = run(world, "revoke", "alice", "shop")
        assert (revoked.exit_code, revoked.stdout) == (0, "web1: revoked\n")
    assert world.users() == ["monitor"]


def test_who_may_not_is_refused_by_the_nodes_and_sees_no_password(world: AccessWorld) -> None:
    with world.daemon(), world.agent():
        refused = run(world, "grant", "alice", "shop", key="looker")
        assert refused.exit_code == 3
        assert "web1: refused: key SHA256:" in refused.stdout
        assert "shown this once" not in refused.output
        assert "alice has no access yet to shop" in refused.stdout


def test_a_site_that_no_node_protects_and_names_that_cannot_be_meant(world: AccessWorld) -> None:
    with world.agent():
        result = run(world, "grant", "alice", "stage")
        assert isinstance(result.exception, NobodyMatches)
        assert "nothing was sent" in str(result.exception)
        listed = run(world, "list")
        assert (listed.exit_code, "no node that answered protects a site" in listed.stdout) == (1, True)
    for user in ("a:b", "a b", "a\nb"):
        assert isinstance(run(world, "grant", user, "shop").exception, UsageError)


def test_a_node_that_is_named_and_silent_is_named_in_the_answer(world: AccessWorld) -> None:
    with world.daemon():
        pass  # the broker keeps its messages from now on
    result = run(world, "grant", "alice", "shop", "--node", "web1", *SHORT)
    assert result.exit_code == 1
    assert "web1: no report yet" in result.stdout
    assert "alice has no access yet to shop" in result.stdout
    password = password_of(result.stdout)  # the node may come back within the hour
    with world.daemon():
        world.reported(lambda report: report.outcome == "granted")
        assert password


def test_the_daemon_as_a_process_ends_an_access_of_itself(world: AccessWorld, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    daemon = RunningDaemon(home, world.settings.broker.address, "access")
    with_sites = (
        f'[trust]\nallowed_signers = "{world.root}/allowed_signers"\n'
        '[[trust.grants]]\nprincipal = "ops@example.org"\ntypes = ["access.grant-requested"]\n'
        f'[access.sites.shop]\nfile = "{world.file}"\n'
    )
    daemon.write(world.settings.broker.address, with_sites)
    text = daemon.file.read_text()
    daemon.file.write_text(f'signing_key = "{world.root}/node.key"\n{text}')
    with daemon:
        daemon.wait("ready: access on web1")
        # Long enough for the command to be there before that.
        granted = world.do(world.grant("alice", until=world.clock() + timedelta(seconds=8)))
        assert granted.outcome == "granted"
        assert world.reported(lambda report: report.outcome == "expired").user == "alice"
        assert world.users() == []
        daemon.hup()
        daemon.wait("ready: access on web1", 2)
        assert world.do(world.grant("bob")).outcome == "granted"
