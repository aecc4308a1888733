"""A rollout signed by a key that an ssh-agent holds, and what is left when the agent is gone in the middle of it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import KeyUnavailable
from deploykit.messages import DeployRequested
from deploykit.operations.keychoice import asking_key
from deploykit.operations.rollout import start_rollout
from deploykit.operations.rolloutstore import list_rollouts
from deploykit.trust.agentkey import AgentKey
from deploykit.trust.keyfiles import load_signer, trust
from deploykit.wire import CONTENT_TYPE, decode
from tests.support.rollouts import NEW, ONE_BY_ONE, Seen, go_on, planned
from tests.support.securitykeys import SoftwareSecurityKey
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


def test_a_security_key_is_touched_for_commands_alone(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, touches = SoftwareSecurityKey.ed25519(), []

    def touched(_key: AgentKey, body: bytes) -> bytes:
        touches.append(decode({"content-type": CONTENT_TYPE}, body))
        return token.sign_body(body)

    monkeypatch.setattr(AgentKey, "sign_body", touched)
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        trust(tmp_path / "allowed_signers", "ops@example.org", token.public_blob)
        key = AgentKey(path=tmp_path / "token.pub", public_blob=token.public_blob)
        ready = attrs.evolve(planned(fleet, batch=ONE_BY_ONE), key=key)
        with Bus(fleet.settings.broker, client_id="operator") as bus:
            assert bus.wait_connected(60)
            assert start_rollout(ready, bus).exit_code == 0
    asked = [message.phase for message in touches if isinstance(message, DeployRequested)]
    assert asked == ["prepare", "activate", "activate", "activate"]
    assert len(touches) == len(asked)


def test_nodes_are_asked_by_the_settings_key_where_the_other_must_be_touched(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    fleet = StandIns(tmp_path, deploykit_broker.address, ())
    key = AgentKey(path=tmp_path / "token.pub", public_blob=SoftwareSecurityKey.ed25519().public_blob)
    assert asking_key(fleet.settings, key).fingerprint == fleet.operator.fingerprint
    assert asking_key(attrs.evolve(fleet.settings, signing_key=None), key) is key
    assert asking_key(attrs.evolve(fleet.settings, signing_key=tmp_path / "missing"), key) is key
    assert asking_key(fleet.settings, fleet.operator) is fleet.operator
