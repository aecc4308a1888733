"""Keys that a real ssh-agent holds: they sign as key files do, and errors name the key and the way out."""

from __future__ import annotations

import base64
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
from deploykit.trust.keyformat import public_line, ssh_string
from deploykit.trust.signature import SigningKey, verify_blob
from deploykit.trust.sshsig import armor, decode_blob
from tests.support.processes import wait_gone
from tests.support.securitykeys import SoftwareSecurityKey
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


def certified(keygen: SshKeygen, name: str = "key") -> Path:
    """A key and the certificate for `ops` next to it; the path of the certificate."""
    key, authority = keygen.generate(name), keygen.generate("ca")
    done = keygen.run("-q", "-s", authority, "-I", "ann", "-n", "ops", f"{key}.pub")
    assert done.returncode == 0, done.stderr
    return keygen.directory / f"{name}-cert.pub"


def program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_an_agent_signs_with_the_certificate_that_it_holds(keygen: SshKeygen, agent: SshAgent) -> None:
    """`ssh-add KEY` adds KEY-cert.pub too; the private half is gone then."""
    path = certified(keygen)
    agent.add(tmp := keygen.directory / "key")
    tmp.unlink()
    key = load_signer(path)
    allowed = AllowedSigners.parse(f"* cert-authority {(keygen.directory / 'ca.pub').read_text()}")
    signer = verify_blob(BODY, key.sign_body(BODY), allowed, utc_now())
    assert signer.is_principal("ops")
    assert (signer.fingerprint, signer.certificate) == (key.fingerprint, "key id 'ann' serial 0")


def test_a_certificates_file_signs_without_an_agent_by_the_key_next_to_it(
    keygen: SshKeygen, agent: SshAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certified(keygen)
    allowed = AllowedSigners.parse(f"* cert-authority {(keygen.directory / 'ca.pub').read_text()}")
    assert isinstance(load_signer(path), SigningKey)  # the agent runs, and does not hold it
    monkeypatch.delenv("SSH_AUTH_SOCK")
    key = load_signer(path)
    assert verify_blob(BODY, key.sign_body(BODY), allowed, utc_now()).is_principal("ops")
    (keygen.directory / "key").unlink()
    with pytest.raises(KeyUnavailable, match="no ssh-agent runs here"):
        load_signer(path)


def test_an_agent_that_holds_the_key_without_its_certificate_does_not_sign_with_it(
    keygen: SshKeygen, agent: SshAgent
) -> None:
    path = certified(keygen)
    aside = path.rename(path.with_name("aside"))
    agent.add(keygen.directory / "key")
    aside.rename(path)
    (keygen.directory / "key").unlink()
    with pytest.raises(KeyUnavailable, match="does not hold this key"):
        load_signer(path)


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
    with pytest.raises(KeyUnavailable, match=r"no signature within 3 s .touch or confirm it in time"):
        attrs.evolve(key, limit=3.0).sign_body(BODY)  # time enough for it to start something
    wait_gone(int((tmp_path / "child").read_text()))


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


# -- security keys: in software, for there is no hardware here -------------------------------------------------------


def plugged_in(directory: Path, monkeypatch: pytest.MonkeyPatch, key: SoftwareSecurityKey) -> None:
    """Put programs in place of OpenSSH's, as if an agent held the key and somebody touched it."""
    (directory / "signature").write_text(armor(key.sign_body(BODY)))
    program(directory, "ssh-add", f"echo '{key.public_openssh} on a token'")
    program(directory, "ssh-keygen", f"cat > /dev/null; tty -s < /dev/tty && exit 9; cat {directory}/signature")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")


@pytest.mark.parametrize(
    "token", [SoftwareSecurityKey.ed25519(), SoftwareSecurityKey.ecdsa()], ids=["ed25519", "ecdsa"]
)
def test_a_person_is_asked_to_touch_a_security_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: SoftwareSecurityKey
) -> None:
    plugged_in(tmp_path, monkeypatch, token)
    public = tmp_path / "token.pub"
    public.write_text(f"{token.public_openssh}\n")
    lines: list[str] = []
    key = load_signer(public, notify=lines.append)
    assert lines == []  # loading signs nothing
    blob = key.sign_body(BODY)
    assert lines == [f"touch your security key to sign ({public}, {token.fingerprint})"]
    signer = verify_blob(BODY, blob, AllowedSigners.parse(f"ops {token.public_openssh}"), utc_now())
    assert signer.present


def test_a_file_that_stands_for_a_security_key_signs_by_ssh_keygen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = SoftwareSecurityKey.ed25519()
    plugged_in(tmp_path, monkeypatch, token)
    private = tmp_path / "token"
    private.write_bytes(key_file(token.public_blob))
    private.chmod(0o600)
    lines: list[str] = []
    key = load_signer(private, passphrase=lambda path, again: pytest.fail("ssh-keygen asks"), notify=lines.append)
    assert isinstance(key, AgentKey)
    assert (key.in_agent, key.needs_touch) == (False, True)
    assert decode_blob(key.sign_body(BODY)).key == token.public_blob
    program(tmp_path, "ssh-keygen", "echo 'device not found' >&2; exit 255")
    with pytest.raises(KeyUnavailable, match=r"did not sign: device not found .plug it in"):
        key.sign_body(BODY)
    assert len(lines) == 2


def key_file(public: bytes) -> bytes:
    """The part of an OpenSSH private key file that is not encrypted, and nothing after it."""
    fields = b"".join(map(ssh_string, (b"none", b"none", b"")))
    content = b"openssh-key-v1\0" + fields + (1).to_bytes(4, "big") + ssh_string(public)
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n".encode()


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
