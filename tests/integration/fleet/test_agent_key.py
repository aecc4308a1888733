"""A rollout signed by a key that an ssh-agent holds, and what is left when the agent is gone in the middle of it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import KeyUnavailable
from deploykit.operations.rollout import start_rollout
from deploykit.operations.rolloutstore import list_rollouts
from deploykit.trust.keyfiles import load_signer
from tests.support.rollouts import NEW, ONE_BY_ONE, Seen, go_on, planned
from tests.support.sshagent import SshAgent
from tests.support.standins import OLD, StandIns, names


@pytest.mark.parametrize("gone", [False, True])
def test_an_agent_that_is_gone_in_the_middle_leaves_a_rollout_that_can_be_resumed(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    seen = Seen()
    with SshAgent() as agent, StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
        agent.add(tmp_path / "operator.key")
        hidden = (tmp_path / "operator.key").rename(tmp_path / "elsewhere")
        key = load_signer(tmp_path / "operator.key.pub")
        ready = attrs.evolve(planned(fleet, batch=ONE_BY_ONE), key=key)
        if gone:
            fleet.before = lambda node, request: agent.end() if request.phase == "activate" else None
        with Bus(fleet.settings.broker, client_id="operator") as bus:
            assert bus.wait_connected(60)
            if not gone:
                assert start_rollout(ready, bus).exit_code == 0
                return
            with pytest.raises(KeyUnavailable) as caught:
                start_rollout(ready, bus, observer=seen)
        rollout = ready.plan.rollout
        assert f"operator.key.pub ({key.fingerprint}): the ssh-agent is gone" in caught.value.problem
        assert "ssh-add" in caught.value.remedy
        assert caught.value.remedy.endswith(f"then `deploykit rollout resume {rollout}`")
        assert list(fleet.live().values()) == [NEW.commit, OLD.commit, OLD.commit]
        assert [(entry.state, entry.running) for entry in list_rollouts(fleet.settings)] == [("canary", False)]
        fleet.before = lambda node, request: None
        hidden.rename(tmp_path / "operator.key")
        assert go_on(fleet, rollout).exit_code == 0
        assert set(fleet.live().values()) == {NEW.commit}
        assert all(fleet.acted(node) == ["prepare", "activate"] for node in fleet.nodes)
