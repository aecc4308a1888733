"""`deploykit keys list|trust|untrust|revoke` on real files, which ssh-keygen reads with the same meaning."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploykit.cli.keys import keys
from deploykit.errors import DeploykitError, KeyFileError, LockBusy, UsageError
from deploykit.operations.keyrevoke import revoke_keys
from deploykit.trust.keyfiles import generate_key, load_allowed_signers
from deploykit.trust.keyformat import ssh_string
from deploykit.trust.krl import parse_krl
from deploykit.trust.signature import SigningKey
from deploykit.trust.signersfile import revoke, trust, untrust
from tests.support.keys import fixed_key
from tests.support.sshkeygen import SshKeygen

BODY = b"body"
RSA = base64.b64encode(b"".join(map(ssh_string, (b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xa5" * 256)))).decode()
OLD = f"# people\n\nann@example.com ssh-rsa {RSA} git only\n"


def invoke(*words: str | Path) -> Result:
    result = CliRunner().invoke(keys, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def refusal(*words: str | Path) -> DeploykitError:
    result = invoke(*words)
    assert isinstance(result.exception, DeploykitError), result.output
    return result.exception


def as_json(*words: str | Path) -> Any:
    result = invoke(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "allowed_signers"


@pytest.fixture
def keygen(tmp_path: Path) -> SshKeygen:
    return SshKeygen(tmp_path)


def verdict(
    keygen: SshKeygen, file: Path, key: Path, *, principal: str, at: str = "", revoked: Path | None = None
) -> bool:
    armored = keygen.sign(key, BODY)
    options = [f"-Overify-time={at}"] if at else []
    options += ["-r", str(revoked)] if revoked is not None else []
    (keygen.directory / "signature").write_text(armored)
    words = ("-Y", "verify", "-f", file, "-I", principal, "-n", "deploykit", "-s", keygen.directory / "signature")
    return keygen.run(*words, *options, stdin=BODY).returncode == 0


# -- trust -----------------------------------------------------------------------------------------------------------


def test_a_line_with_times_means_the_same_to_ssh_keygen(keygen: SshKeygen, file: Path) -> None:
    key = keygen.generate("key")
    times = ("--valid-after", "2026-01-01", "--valid-before", "2026-06-30T12:00")
    assert as_json("trust", "ann", key.with_suffix(".pub"), "--file", file, *times)["added"] is True
    assert as_json("trust", "ann", key.with_suffix(".pub"), "--file", file, *times)["added"] is False
    assert ' namespaces="deploykit",valid-after="20260101000000Z",valid-before="20260630120000Z" ' in file.read_text()
    for at, good in (
        ("20251231235959Z", False),
        ("20260101Z", True),
        ("202606301200Z", True),
        ("202606301201Z", False),
    ):
        assert verdict(keygen, file, key, principal="ann", at=at) is good, at
    # Without end it is another line, not the same.
    assert as_json("trust", "ann", key.with_suffix(".pub"), "--file", file)["added"] is True
    assert len(load_allowed_signers(file).signers) == 2


def test_an_authority_may_have_a_pattern_and_a_person_may_not(keygen: SshKeygen, file: Path) -> None:
    public = keygen.generate("ca").with_suffix(".pub")
    assert isinstance(refusal("trust", "*.example.com", public, "--file", file), KeyFileError)
    for bad in ("a b", 'a"b', "a\\b", ""):
        assert isinstance(refusal("trust", bad, public, "--file", file, "--cert-authority"), KeyFileError)
    line = as_json("trust", "*.example.com,!bad.example.com", public, "--file", file, "--cert-authority")["line"]
    assert line.startswith('*.example.com,!bad.example.com cert-authority,namespaces="deploykit" ssh-ed25519 ')
    assert as_json("trust", "*.example.com", public, "--file", file, "--cert-authority")["added"] is False
    (signer,) = load_allowed_signers(file).signers
    assert signer.authority
    # The key of an authority signs no message itself: to do that, it takes a line of its own.
    assert as_json("trust", "ann", public, "--file", file)["added"] is True
    certified = keygen.generate("web1")
    done = keygen.run("-q", "-s", public.with_suffix(""), "-I", "web1", "-n", "web1.example.com", certified)
    assert done.returncode == 0, done.stderr
    (keygen.directory / "web1-cert.pub").rename(keygen.directory / "web1.pub")
    assert verdict(keygen, file, certified.with_suffix(".pub"), principal="web1.example.com")


# -- untrust ---------------------------------------------------------------------------------------------------------


def test_untrust_removes_a_person_s_lines_and_nothing_else(tmp_path: Path, file: Path) -> None:
    ann, ben = generate_key(tmp_path / "ann"), generate_key(tmp_path / "ben")
    file.write_text(OLD)
    file.chmod(0o640)
    trust(file, "ann@example.com", ann.public_blob, "laptop")
    trust(file, "ben@example.com", ben.public_blob)
    with file.open("a") as end:
        end.write("# the end, without a line feed")
    before = file.read_text()
    gone = next(line for line in before.splitlines() if "laptop" in line)
    removed = as_json("untrust", "ann@example.com", "--file", file)
    assert removed["removed"] == [{"principals": ["ann@example.com"], "fingerprint": ann.fingerprint}]
    assert file.read_text() == before.replace(f"{gone}\n", "")
    assert file.stat().st_mode & 0o777 == 0o640
    assert [signer.key for signer in load_allowed_signers(file).signers] == [ben.public_blob]


@pytest.mark.parametrize("how", ["fingerprint", "file", "line"])
def test_untrust_takes_a_key_in_each_form(tmp_path: Path, file: Path, how: str) -> None:
    key = generate_key(tmp_path / "key")
    for name in ("ann", "team"):
        trust(file, name, key.public_blob)
    who = {"fingerprint": key.fingerprint, "file": str(tmp_path / "key.pub"), "line": key.public_openssh}[how]
    result = invoke("untrust", who, "--file", file)
    assert [line.split(": ")[1] for line in result.stdout.splitlines()] == [
        f"ann {key.fingerprint}",
        f"team {key.fingerprint}",
    ]
    assert file.read_text() == ""


def test_untrust_names_what_still_matches_and_refuses_what_is_not_there(tmp_path: Path, file: Path) -> None:
    key = generate_key(tmp_path / "key")
    trust(file, "ann@example.com", key.public_blob)
    with file.open("a") as end:
        end.write(f"*@example.com {key.public_openssh}\n")
    result = invoke("untrust", "ann@example.com", "--file", file)
    assert result.exit_code == 0
    assert f"note: line 1 (*@example.com) still lets {key.fingerprint} sign as ann@example.com" in result.stderr
    assert "line 1 is for others too" in str(refusal("untrust", "ann@example.com", "--file", file))
    assert "has no line of zoe" in str(refusal("untrust", "zoe", "--file", file))
    file.write_text("nonsense\n")
    assert "line 1" in str(refusal("untrust", "zoe", "--file", file))
    assert file.read_text() == "nonsense\n"


@pytest.mark.parametrize("form", ["fingerprint", "file", "line"])
def test_a_key_is_nobody_whom_a_pattern_lets_sign(tmp_path: Path, file: Path, form: str) -> None:
    key, authority = generate_key(tmp_path / "key"), generate_key(tmp_path / "ca")
    trust(file, "ann", key.public_blob)
    trust(file, "*", authority.public_blob, authority=True)
    who = {"fingerprint": key.fingerprint, "file": str(tmp_path / "key.pub"), "line": key.public_openssh}[form]
    assert invoke("untrust", who, "--file", file).stderr == ""
    refused = refusal("untrust", who, "--file", file)
    assert "has no line of" in str(refused)
    assert "for others too" not in str(refused)


def test_who_locks_the_directory_stops_no_revocation_in_silence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who can read a directory can lock it."""
    monkeypatch.setattr("deploykit.trust.signersfile._LOCK_WAIT", 0.05)
    held = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for change in (revoke, lambda path, key: trust(path, "ann", key)):
            with pytest.raises(LockBusy, match="lslocks"):
                change(file, fixed_key(1).public_blob)
        assert not file.exists()
    finally:
        os.close(held)
    assert revoke(file, fixed_key(1).public_blob)


def test_lines_added_and_removed_at_once_all_take_effect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.trust.signersfile._LOCK_WAIT", 300.0)  # others write to the disk first
    signers = [fixed_key(number) for number in range(1, 13)]
    for number, key in enumerate(signers):
        trust(file, f"node{number}", key.public_blob)

    def change(number: int) -> None:
        if number < 12:
            untrust(file, lambda line: line.key == signers[number].public_blob)
        else:
            trust(file, f"node{number}", fixed_key(number + 1).public_blob)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(24)))
    assert {line.principals for line in load_allowed_signers(file).signers} == {(f"node{n}",) for n in range(12, 24)}


# -- revoke ----------------------------------------------------------------------------------------------------------


def test_a_revoked_key_counts_for_nothing_to_us_and_to_ssh_keygen(
    keygen: SshKeygen, file: Path, tmp_path: Path
) -> None:
    key, revoked = keygen.generate("key"), tmp_path / "revoked"
    invoke("trust", "ann", key.with_suffix(".pub"), "--file", file)
    revoked.write_text("# lost in May\n")
    first = invoke("revoke", "ann", "--file", file, "--revoked", revoked)
    assert "revokes now: SHA256:" in first.stdout, first.exception
    assert "revoked already" in invoke("revoke", key.with_suffix(".pub"), "--revoked", revoked).stdout
    assert revoked.read_text().startswith("# lost in May\nssh-ed25519 ")
    assert len(revoked.read_text().splitlines()) == 2
    assert verdict(keygen, file, key, principal="ann")
    assert not verdict(keygen, file, key, principal="ann", revoked=revoked)
    (entry,) = as_json("list", "--file", file, "--revoked", revoked)["keys"]
    assert (entry["counts"], entry["why_not"]) == (False, "revoked")


def test_a_binary_list_is_extended_by_ssh_keygen(keygen: SshKeygen, tmp_path: Path) -> None:
    first, second = keygen.generate("first"), keygen.generate("second")
    krl = tmp_path / "revoked"
    assert keygen.run("-q", "-k", "-f", krl, first.with_suffix(".pub")).returncode == 0
    assert "revokes now" in invoke("revoke", second.with_suffix(".pub"), "--revoked", krl).stdout
    assert "revoked already" in invoke("revoke", second.with_suffix(".pub"), "--revoked", krl).stdout
    for key in (first, second):
        assert keygen.run("-Q", "-f", krl, key.with_suffix(".pub")).returncode == 1
    assert keygen.run("-Q", "-f", krl, keygen.generate("third").with_suffix(".pub")).returncode == 0


def test_certificates_are_revoked_by_serial_and_key_id(keygen: SshKeygen, tmp_path: Path) -> None:
    authority, krl = keygen.generate("ca"), tmp_path / "revoked.krl"
    certificates = {}
    for number, name in ((7, "web7"), (8, "web8"), (12, "web12"), (20, "ann laptop")):
        key = keygen.generate(f"key{number}")
        done = keygen.run("-q", "-s", authority, "-I", name, "-n", "x", "-z", str(number), key.with_suffix(".pub"))
        assert done.returncode == 0, done.stderr
        certificates[number] = tmp_path / f"key{number}-cert.pub"
    by = ("--authority", authority.with_suffix(".pub"), "--revoked", krl)
    assert as_json("revoke", "--serial", "7-8", *by)["certificates"] == ["serial: 7-8"]
    assert "revokes now: id: ann laptop" in invoke("revoke", "--key-id", "ann laptop", *by).stdout
    found = {number: keygen.run("-Q", "-f", krl, file).returncode for number, file in certificates.items()}
    assert found == {7: 1, 8: 1, 12: 0, 20: 1}
    assert parse_krl(krl.read_bytes()).certificates


def test_what_a_list_cannot_hold_is_refused_and_leaves_it(keygen: SshKeygen, tmp_path: Path) -> None:
    public = keygen.generate("key").with_suffix(".pub")
    text = tmp_path / "revoked"
    invoke("revoke", public, "--revoked", text)
    before = text.read_bytes()
    refused = refusal("revoke", "--serial", "7", "--authority", public, "--revoked", text)
    assert "is a text, which can hold keys alone" in str(refused)
    assert "ssh-keygen -k -f" in str(refused)
    assert text.read_bytes() == before
    broken = tmp_path / "broken"
    broken.write_bytes(b"SSHKRL\n\0rubbish")
    with pytest.raises(KeyFileError):
        revoke_keys(broken, [(fixed_key(1).public_blob, "")])
    assert broken.read_bytes() == b"SSHKRL\n\0rubbish"
    text.chmod(0o666)
    assert "others could add" in str(refusal("revoke", public, "--revoked", text))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--serial", "7"),
        ("--authority", "ca.pub"),
        ("SHA256:x", "--serial", "7", "--authority", "ca.pub"),
        ("--serial", "seven", "--authority", "ca.pub", "--revoked", "x"),
        ("--serial", "7-", "--authority", "ca.pub", "--revoked", "x"),
        ("--serial", "7" * 5000, "--authority", "ca.pub", "--revoked", "x"),
        ("--serial", "7-" + "8" * 5000, "--authority", "ca.pub", "--revoked", "x"),
        ("--serial", "\u0663", "--authority", "ca.pub", "--revoked", "x"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert isinstance(refusal("revoke", *words), UsageError)


def test_a_key_revoked_twice_stands_once(file: Path) -> None:
    key = fixed_key(1)
    assert revoke(file, key.public_blob, "lost\nssh-ed25519 AAAA") is True
    assert revoke(file, key.public_blob) is False
    assert len(file.read_text().splitlines()) == 1


# -- list ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path, file: Path) -> Path:
    path = tmp_path / "deploykit.toml"
    path.write_text(f"""
node = "hub"
state = "{tmp_path / "state"}"
[trust]
allowed_signers = "{file}"
revoked_keys = "{tmp_path / "revoked"}"
[[trust.grants]]
principal = "ann@example.com"
types = ["deploy.requested", "rollout.abort"]
sites = ["shop"]
[[trust.grants]]
principal = "ben@example.com"
types = ["deploy.requested"]
""")
    return path


def test_the_list_shows_what_counts_and_what_it_may(tmp_path: Path, file: Path, settings: Path) -> None:
    ann: SigningKey = generate_key(tmp_path / "ann")
    trust(file, "ann@example.com", ann.public_blob, "laptop")
    with file.open("a") as end:
        end.write(f'*@example.com namespaces="deploykit",valid-before="20200101Z" {fixed_key(1).public_openssh}\n')
        end.write(f'ben@example.com namespaces="git" {fixed_key(2).public_openssh} \n')
        end.write(f"web1 {fixed_key(3).public_openssh} evil\x1b[2J\n".replace("\x1b", " "))
        end.write(OLD)
    revoke(tmp_path / "revoked", fixed_key(3).public_blob)
    listed = as_json("list", "--config", settings)
    assert listed["file"] == str(file)
    assert len(listed["unused"]) == 1
    assert [(entry["line"], entry["counts"], len(entry["grants"])) for entry in listed["keys"]] == [
        (1, True, 1),
        (2, False, 2),
        (3, False, 1),
        (4, False, 0),
    ]
    assert listed["keys"][0]["grants"] == [
        {"principal": "ann@example.com", "types": ["deploy.requested", "rollout.abort"], "sites": ["shop"]}
    ]
    assert listed["keys"][1]["valid_before"] == "2020-01-01T00:00:00Z"
    text = invoke("list", "--config", settings).stdout
    assert f"{ann.fingerprint}  ssh-ed25519  ann@example.com" in text
    assert "deploy.requested, rollout.abort" in text
    assert "was valid only before 2020-01-01" in text
    assert "does not allow the key for namespace 'deploykit'" in text
    assert "revoked" in text
    for word, lines in (("laptop", [1]), (ann.fingerprint, [1]), ("web1", [4]), ("nobody", [])):
        assert [entry["line"] for entry in as_json("list", word, "--config", settings)["keys"]] == lines
    assert "no key of nobody" in invoke("list", "nobody", "--config", settings).stderr


def test_without_settings_a_file_is_enough(tmp_path: Path, file: Path) -> None:
    trust(file, "ann", fixed_key(1).public_blob)
    (entry,) = as_json("list", "--file", file)["keys"]
    assert (entry["principals"], entry["counts"], entry["grants"]) == (["ann"], True, [])


def test_the_settings_file_is_changed_where_none_is_named(tmp_path: Path, file: Path, settings: Path) -> None:
    key = generate_key(tmp_path / "key")
    assert invoke("trust", "ann@example.com", tmp_path / "key.pub", "--config", settings).exit_code == 0
    assert invoke("revoke", "ann@example.com", "--config", settings).exit_code == 0
    assert key.public_openssh in (tmp_path / "revoked").read_text()
    assert invoke("untrust", "ann@example.com", "--config", settings).exit_code == 0
    assert load_allowed_signers(file).signers == ()


@pytest.mark.parametrize("command", ["list", "untrust", "revoke"])
def test_help_has_an_example(command: str) -> None:
    assert f"deploykit keys {command}" in invoke(command, "--help").output


# -- certificates ----------------------------------------------------------------------------------------------------


def test_the_file_of_a_certificate_stands_for_its_key(keygen: SshKeygen, tmp_path: Path) -> None:
    authority, key = keygen.generate("ca"), keygen.generate("key")
    done = keygen.run("-q", "-s", authority, "-I", "ann of 2026", "-n", "ann", f"{key}.pub")
    assert done.returncode == 0, done.stderr
    revoked = tmp_path / "revoked"
    shown = as_json("revoke", tmp_path / "key-cert.pub", "--revoked", revoked)
    assert shown["added"] == 1
    assert as_json("revoke", f"{key}.pub", "--revoked", revoked) == {**shown, "added": 0}


def test_a_certificate_is_not_trusted_as_a_key(keygen: SshKeygen, file: Path) -> None:
    authority, key = keygen.generate("ca"), keygen.generate("key")
    keygen.run("-q", "-s", authority, "-I", "ann of 2026", "-n", "ann", f"{key}.pub")
    error = refusal("trust", "ann", f"{key}-cert.pub", "--file", file)
    assert "it is a certificate's" in error.problem
    assert "--cert-authority" in error.remedy


def test_whose_certificate_counts_is_not_told_to_revoke_the_authority(keygen: SshKeygen, file: Path) -> None:
    as_json("trust", "*", f"{keygen.generate('ca')}.pub", "--cert-authority", "--file", file)
    for words in (("untrust", "ann"), ("revoke", "ann", "--revoked", file.with_name("revoked"))):
        error = refusal(*words, "--file", file)
        assert "is an authority's" in error.problem
        assert "fingerprint" not in error.remedy
        assert "--key-id" in error.remedy


def test_a_private_key_in_place_of_its_public_half_is_named(keygen: SshKeygen, tmp_path: Path) -> None:
    key = keygen.generate("key")
    assert refusal("revoke", key, "--revoked", tmp_path / "revoked").remedy == "name the .pub file"
