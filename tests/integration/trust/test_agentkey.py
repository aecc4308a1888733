"""Keys that a real ssh-agent holds: they sign as key files do, and errors name the key and the way out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.errors import KeyFileError, KeyUnavailable, WrongPassphrase
from deploykit.messages import utc_now
from deploykit.trust.agentkey import AgentKey
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import load_signer, load_signing_key
from deploykit.trust.signature import SigningKey, verify_blob
from deploykit.trust.sshsig import public_line
from tests.support.sshagent import SshAgent
from tests.support.sshkeygen import SshKeygen

BODY = b'{"id":"1"}\xff\r\n'


@pytest.fixture
def keygen(tmp_path: Path) -> SshKeygen:
    return SshKeygen(tmp_path)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshAgent]:
    with SshAgent() as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(running.socket))
        yield running


def held(keygen: SshKeygen, agent: SshAgent) -> Path:
    """The public half of a key that the agent alone has."""
    private = keygen.generate("key")
    agent.add(private)
    private.unlink()
    return private.with_suffix(".pub")


def program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_key_in_an_agent_signs_as_a_file_does(keygen: SshKeygen, agent: SshAgent) -> None:
    key = load_signer(held(keygen, agent))
    blob = key.sign_body(BODY)
    allowed = AllowedSigners.parse(f"ops {public_line(key.public_blob)}")
    signer = verify_blob(BODY, blob, allowed, utc_now())
    assert signer.fingerprint == key.fingerprint
    assert signer.is_principal("ops")


def test_a_relative_path_that_begins_with_a_dash_is_no_option(
    keygen: SshKeygen, agent: SshAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = held(keygen, agent)
    monkeypatch.chdir(public.parent)
    public.rename("-K.pub")
    assert load_signer(Path("-K.pub")).sign_body(BODY)


def test_no_agent_is_named_before_anything_is_signed(keygen: SshKeygen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    private = keygen.generate("key")
    with pytest.raises(KeyUnavailable) as caught:
        load_signer(private.with_suffix(".pub"))
    fingerprint = load_signing_key(private).fingerprint
    assert str(caught.value) == (
        f"key {private}.pub ({fingerprint}): no ssh-agent runs here: SSH_AUTH_SOCK is not set "
        f"(`ssh-add {private}`, or give the private key file: {private})"
    )
    assert caught.value.exit_code == 1


def test_an_agent_without_the_key_is_an_error(keygen: SshKeygen, agent: SshAgent) -> None:
    agent.add(keygen.generate("other"))
    with pytest.raises(KeyUnavailable, match="does not hold this key") as caught:
        load_signer(keygen.generate("key").with_suffix(".pub"))
    assert "ssh-add" in caught.value.remedy


def test_an_agent_without_any_key_is_an_error(keygen: SshKeygen, agent: SshAgent) -> None:
    with pytest.raises(KeyUnavailable, match="does not hold this key"):
        load_signer(keygen.generate("key").with_suffix(".pub"))


def test_an_agent_that_is_gone_is_named_with_the_key(keygen: SshKeygen, agent: SshAgent) -> None:
    public = held(keygen, agent)
    key = load_signer(public)
    agent.end()
    with pytest.raises(KeyUnavailable) as caught:
        key.sign_body(BODY)
    assert f"key {public} ({key.fingerprint}): the ssh-agent is gone" in str(caught.value)
    assert "ssh-add" in caught.value.remedy


def test_a_key_that_was_removed_from_the_agent_signs_no_more(keygen: SshKeygen, agent: SshAgent) -> None:
    key = load_signer(held(keygen, agent))
    agent.remove_all()
    with pytest.raises(KeyUnavailable, match="does not hold this key"):
        key.sign_body(BODY)


def test_a_file_that_was_exchanged_meanwhile_signs_nothing(keygen: SshKeygen, agent: SshAgent) -> None:
    public = held(keygen, agent)
    key = load_signer(public)
    other = keygen.generate("other")
    agent.add(other)
    public.write_text(other.with_suffix(".pub").read_text())
    with pytest.raises(KeyUnavailable, match="another key signed"):
        key.sign_body(BODY)


def test_a_program_that_hangs_ends_at_the_deadline_with_all_it_started(
    keygen: SshKeygen, agent: SshAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_signer(held(keygen, agent))
    assert isinstance(key, AgentKey)
    program(tmp_path, "ssh-keygen", f"sleep 600 &\necho $! > {tmp_path}/child\nwait")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(KeyUnavailable, match=r"no signature within 0\.5 s .touch or confirm it in time"):
        attrs.evolve(key, limit=0.5).sign_body(BODY)
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_program_that_prints_anything_else_is_an_error(
    keygen: SshKeygen, agent: SshAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_signer(held(keygen, agent))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for text, says in (
        ("echo hello", "not an SSH signature file"),
        (r"printf '\377'", "printed no signature"),
        ("echo first >&2; printf 'it \\033[2J burns\\n' >&2; exit 1", r"did not sign: first / it \?\[2J burns"),
        ("exit 1", "gives no reason"),
    ):
        program(tmp_path, "ssh-keygen", text)
        with pytest.raises(KeyUnavailable, match=says):
            key.sign_body(BODY)


def test_without_openssh_the_error_says_what_to_install(
    keygen: SshKeygen, agent: SshAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_signer(held(keygen, agent))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(KeyUnavailable, match=r"cannot start ssh-keygen: .*install"):
        key.sign_body(BODY)


def test_the_program_gets_an_allow_list_of_the_environment(
    keygen: SshKeygen, agent: SshAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_signer(held(keygen, agent))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DEPLOYKIT_SECRET", "canary-4711")
    monkeypatch.setenv("LD_DEBUG_OUTPUT", "/nowhere")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    program(tmp_path, "ssh-keygen", f"env > {tmp_path}/seen; exit 1")
    with pytest.raises(KeyUnavailable):
        key.sign_body(BODY)
    seen = (tmp_path / "seen").read_text()
    assert f"SSH_AUTH_SOCK={agent.socket}" in seen
    assert "SSH_ASKPASS=/bin/false" in seen
    assert "canary" not in seen
    assert "LD_DEBUG_OUTPUT" not in seen


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_public_key_of_another_type_cannot_sign(keygen: SshKeygen, agent: SshAgent, kind: str) -> None:
    private = keygen.generate("key", kind=kind)
    agent.add(private)
    with pytest.raises(KeyFileError, match="cannot sign messages"):
        load_signer(private.with_suffix(".pub"))


# -- private key files -----------------------------------------------------------------------------------------------


def test_a_passphrase_is_asked_for_only_where_a_file_has_one(keygen: SshKeygen) -> None:
    asked: list[bool] = []

    def ask(path: Path, again: bool) -> str:
        assert path.name == "locked"
        asked.append(again)
        return "open sesame" if again else "wrong"

    assert isinstance(load_signer(keygen.generate("plain"), passphrase=ask), SigningKey)
    assert asked == []
    locked = keygen.generate("locked", passphrase="open sesame")
    assert load_signer(locked, passphrase=ask).sign_body(BODY)
    assert asked == [False, True]


def test_after_three_wrong_passphrases_it_ends(keygen: SshKeygen) -> None:
    asked: list[bool] = []

    def ask(_path: Path, again: bool) -> str:
        asked.append(again)
        return "canary-4711"

    locked = keygen.generate("locked", passphrase="open sesame")
    with pytest.raises(WrongPassphrase) as caught:
        load_signer(locked, passphrase=ask)
    assert asked == [False, True, True]
    assert str(caught.value) == f"{locked}: the passphrase is wrong, or the private key is damaged"


def test_without_a_passphrase_the_error_shows_both_ways_out(keygen: SshKeygen) -> None:
    locked = keygen.generate("locked", passphrase="open sesame")
    with pytest.raises(KeyFileError, match="protected by a passphrase") as caught:
        load_signer(locked)
    assert "--passphrase-file" in caught.value.remedy
    assert "ssh-add" in caught.value.remedy


def test_a_passphrase_for_a_key_in_an_agent_is_refused(keygen: SshKeygen, agent: SshAgent) -> None:
    with pytest.raises(KeyFileError, match="needs no passphrase"):
        load_signer(held(keygen, agent), passphrase="canary-4711")
