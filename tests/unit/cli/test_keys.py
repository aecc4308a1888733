"""`deploykit keys` and `deploykit message sign|verify`, as a person and as a script use them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import message_signing
from deploykit.cli.keys import keys
from deploykit.errors import DeploykitError, KeyFileError, SignatureError, UsageError
from deploykit.trust.keyfiles import generate_key, load_allowed_signers, load_signing_key, trust
from deploykit.trust.keyformat import SK_ECDSA, SK_ED25519
from deploykit.trust.signature import HEADER, SigningKey
from deploykit.trust.sshsig import armor
from tests.support.cli import run
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

BODY = b'{"id":"1"}\xff\r\n'


@click.group()
def message() -> None:
    """A group as the lead's: the two commands registered."""


message.add_command(message_signing.sign)
message.add_command(message_signing.verify)


def invoke(command: click.Command, *words: str | Path, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(command, [str(word) for word in words], input=stdin)
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def refusal(result: Result) -> DeploykitError:
    assert isinstance(result.exception, DeploykitError), result.output
    return result.exception


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate_key(tmp_path / "key")


@pytest.fixture
def signers(tmp_path: Path, key: SigningKey) -> Path:
    trust(tmp_path / "allowed_signers", "ops", key.public_blob)
    return tmp_path / "allowed_signers"


# -- keys ------------------------------------------------------------------------------------------------------------


def test_generate_prints_the_public_line_and_the_trust_line(tmp_path: Path) -> None:
    result = invoke(keys, "generate", tmp_path / "key", "--principal", "web1")
    key = load_signing_key(tmp_path / "key")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{key.public_openssh} web1",
        f'web1 namespaces="deploykit" {key.public_openssh} web1',
    ]
    assert "PRIVATE" not in result.output
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_generate_as_json(tmp_path: Path) -> None:
    result = invoke(keys, "generate", tmp_path / "key", "--principal", "web1", "--json")
    told = json.loads(result.stdout)
    key = load_signing_key(tmp_path / "key")
    assert told == {
        "path": str(tmp_path / "key"),
        "fingerprint": key.fingerprint,
        "public_key": f"{key.public_openssh} web1",
        "allowed_signers": f'web1 namespaces="deploykit" {key.public_openssh} web1',
    }


def test_generate_refuses_a_bad_name_before_it_makes_a_key(tmp_path: Path) -> None:
    assert isinstance(refusal(invoke(keys, "generate", tmp_path / "key", "--principal", "a b")), KeyFileError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 54321"), OSError("No username set")])
def test_generate_for_a_user_without_a_name_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nameless() -> str:
        raise error  # what Python does in a container with a bare user id, before 3.13 and since

    monkeypatch.setattr("getpass.getuser", nameless)
    refused = refusal(invoke(keys, "generate", tmp_path / "key"))
    assert isinstance(refused, UsageError)
    assert "--principal NAME" in str(refused)
    assert list(tmp_path.iterdir()) == []
    assert invoke(keys, "generate", tmp_path / "key", "--principal", "web1").exit_code == 0


def test_generate_asks_twice_for_a_passphrase_and_shows_it_nowhere(tmp_path: Path) -> None:
    words = ("generate", tmp_path / "key", "--principal", "web1", "--passphrase")
    result = invoke(keys, *words, stdin="canary-4711\ncanary-4711\n")
    assert result.exit_code == 0
    assert "canary" not in result.output
    load_signing_key(tmp_path / "key", passphrase="canary-4711")


def test_generate_takes_a_passphrase_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-4711\n")
    secret.chmod(0o600)
    assert invoke(keys, "generate", tmp_path / "key", "--passphrase-file", secret).exit_code == 0
    shown = invoke(keys, "show", tmp_path / "key", "--passphrase-file", secret)
    assert shown.exit_code == 0
    assert "canary" not in shown.output


def test_a_public_key_whose_agent_is_not_there_names_the_private_one(
    tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "body").write_bytes(BODY)
    error = refusal(invoke(message, "sign", tmp_path / "body", "--key", tmp_path / "key.pub"))
    assert f"or give the private key file: {tmp_path}/key" in str(error)


def test_show_tells_the_public_half_only(tmp_path: Path, key: SigningKey) -> None:
    result = invoke(keys, "show", tmp_path / "key")
    assert result.stdout == f"{key.public_openssh}\n"
    assert key.fingerprint in result.stderr
    (tmp_path / "key.pub").write_text(f"{key.public_openssh} ann\x1b[2J\n")
    public = json.loads(invoke(keys, "show", tmp_path / "key.pub", "--json").stdout)
    assert public["private"] is False
    assert public["public_key"] == f"{key.public_openssh} ann [2J"


def test_trust_takes_a_file_or_a_line_and_says_what_it_did(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "key.pub").write_text(key.public_openssh)
    file = tmp_path / "allowed_signers"
    first = invoke(keys, "trust", "ops", tmp_path / "key.pub", "--file", file)
    again = invoke(keys, "trust", "ops", key.public_openssh, "--file", file, "--json")
    assert "trusts now: ops" in first.stdout
    assert json.loads(again.stdout)["added"] is False
    assert len(load_allowed_signers(file).signers) == 1


def test_trust_refuses_a_private_key(tmp_path: Path, key: SigningKey) -> None:
    refused = refusal(invoke(keys, "trust", "ops", tmp_path / "key", "--file", tmp_path / "allowed_signers"))
    assert "not one public key line" in str(refused)


def test_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = run("keys", "show", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"deploykit: cannot read key {tmp_path}/missing: No such file or directory\n"


@pytest.mark.parametrize("words", [(), ("generate",), ("show",), ("trust",)])
def test_help_has_an_example(words: tuple[str, ...]) -> None:
    result = invoke(keys, *words, "--help")
    assert result.exit_code == 0
    assert "deploykit keys" in result.output


# -- message sign, message verify ------------------------------------------------------------------------------------


def test_sign_prints_the_header_and_verify_takes_it(tmp_path: Path, signers: Path, key: SigningKey) -> None:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    line = invoke(message, "sign", body, "-k", tmp_path / "key").stdout
    assert line.startswith(f"{HEADER}:")
    value = line.strip().partition(":")[2]
    (tmp_path / "line").write_text(line)
    (tmp_path / "value").write_text(value)
    armored = invoke(message, "sign", "-", "-k", tmp_path / "key", "--armor", stdin=BODY).stdout
    (tmp_path / "armored").write_text(armored)
    for given in (value, line.strip(), tmp_path / "line", tmp_path / "value", tmp_path / "armored"):
        result = invoke(message, "verify", body, "-s", given, "-f", signers)
        assert result.stdout == f"good signature by ops ({key.fingerprint})\n  ssh-ed25519, shows no person\n", given


def test_sign_and_verify_as_json(tmp_path: Path, signers: Path, key: SigningKey) -> None:
    signed = json.loads(invoke(message, "sign", "-k", tmp_path / "key", "--json", stdin=BODY).stdout)
    assert (signed["header"], signed["fingerprint"]) == (HEADER, key.fingerprint)
    result = invoke(message, "verify", "-s", signed["value"], "-f", signers, "--json", stdin=BODY)
    assert json.loads(result.stdout) == {
        "good": True,
        "fingerprint": key.fingerprint,
        "principals": [["ops"]],
        "signers": [
            {
                "fingerprint": key.fingerprint,
                "principals": [["ops"]],
                "key_type": "ssh-ed25519",
                "present": False,
                "verified": False,
                "origin": None,
                "certificate": None,
            }
        ],
    }


def test_verify_refuses_with_3(tmp_path: Path, signers: Path) -> None:
    value = invoke(message, "sign", "-k", tmp_path / "key", stdin=BODY).stdout.strip()
    for words, stdin in (
        (("-s", value, "-f", signers), BODY + b"x"),
        (("-s", value, "-f", signers, "-I", "root"), BODY),
    ):
        error = refusal(invoke(message, "verify", *words, stdin=stdin))
        assert isinstance(error, SignatureError)
        assert error.exit_code == 3
    revoked = tmp_path / "revoked"
    revoked.write_text(load_signing_key(tmp_path / "key").public_openssh)
    result = invoke(message, "verify", "-s", value, "-f", signers, "--revoked", revoked, stdin=BODY)
    assert "revoked" in str(refusal(result))


def _passkey_file(tmp_path: Path, signers: Path) -> tuple[SoftwarePasskey, Path]:
    """A passkey that is trusted, and its signature in a file of ssh-keygen's form."""
    passkey = SoftwarePasskey()
    trust(signers, "ann", passkey.public_blob)
    (tmp_path / "passkey.sig").write_text(armor(passkey.sign_body(BODY)))
    return passkey, tmp_path / "passkey.sig"


PASSKEYS = ("--origin", "https://deploy.example.org", "--rp-id", "deploy.example.org")


def test_several_signatures_are_added_and_each_signer_is_shown(tmp_path: Path, signers: Path, key: SigningKey) -> None:
    passkey, first = _passkey_file(tmp_path, signers)
    line = invoke(message, "sign", "-k", tmp_path / "key", "--add", first, stdin=BODY).stdout.strip()
    assert line.count(",") == 1
    shown = invoke(message, "verify", "-s", line, "-f", signers, *PASSKEYS, stdin=BODY).stdout
    assert f"good signature by ops ({key.fingerprint})\n  ssh-ed25519, shows no person\n" in shown
    assert (
        f"good signature by ann ({passkey.fingerprint})\n  sk-ecdsa-sha2-nistp256@openssh.com, somebody touched it, "
        "and it knew the person (PIN or finger), asked for by https://deploy.example.org\n"
    ) in shown
    both = invoke(message, "verify", "-s", first, "-s", line.split(",")[1], "-f", signers, *PASSKEYS, stdin=BODY)
    assert both.stdout == shown
    signed = json.loads(invoke(message, "sign", "-k", tmp_path / "key", "--add", line, "--json", stdin=BODY).stdout)
    assert (signed["count"], signed["value"]) == (2, line.partition(":")[2]), "the same key replaces its own"
    assert invoke(message, "verify", "-s", line, "-f", signers, *PASSKEYS, "-I", "ann", stdin=BODY).exit_code == 0


def test_signatures_of_another_body_are_not_added_to(tmp_path: Path, signers: Path) -> None:
    _, first = _passkey_file(tmp_path, signers)
    error = refusal(invoke(message, "sign", "-k", tmp_path / "key", "--add", first, stdin=BODY + b" "))
    assert "not about this message" in str(error)
    refused = refusal(invoke(message, "sign", "-k", tmp_path / "key", "--add", first, "--armor", stdin=BODY))
    assert "--armor writes one signature" in str(refused)


def test_verify_takes_pages_and_sites_from_options_or_settings(tmp_path: Path, signers: Path) -> None:
    _, first = _passkey_file(tmp_path, signers)
    nothing = refusal(invoke(message, "verify", "-s", first, "-f", signers, stdin=BODY))
    assert "not in trust.rp_ids" in str(nothing)
    strict = (*PASSKEYS, "--verify-required")
    assert invoke(message, "verify", "-s", first, "-f", signers, *strict, stdin=BODY).exit_code == 0
    wrong = ("--origin", "https://deploy.example.org/", "--rp-id", "deploy.example.org")
    assert "expected https://HOST" in str(refusal(invoke(message, "verify", "-s", first, "-f", signers, *wrong)))
    config = tmp_path / "deploykit.toml"
    config.write_text(
        f'[trust]\nallowed_signers = "{signers}"\norigins = ["https://deploy.example.org"]\n'
        'rp_ids = ["deploy.example.org"]\n'
    )
    assert "asked for by" in invoke(message, "verify", "-s", first, "-c", config, stdin=BODY).stdout
    elsewhere = ("--origin", "https://other.example.org")
    refused = refusal(invoke(message, "verify", "-s", first, "-c", config, *elsewhere, stdin=BODY))
    assert "not in trust.origins" in str(refused)
    config.write_text("[trust]\n")
    error = refusal(invoke(message, "verify", "-s", first, "-c", config, stdin=BODY))
    assert "give --allowed-signers FILE" in str(error)


def test_the_list_says_which_passkeys_can_count(tmp_path: Path, signers: Path) -> None:
    _passkey_file(tmp_path, signers)
    config = tmp_path / "deploykit.toml"
    config.write_text(f'[trust]\nallowed_signers = "{signers}"\n')
    listed = json.loads(invoke(keys, "list", "-c", config, "--json").stdout)["keys"]
    assert [key["why_not"] for key in listed if key["why_not"]] == [
        "its passkey was made for 'deploy.example.org', which is not in trust.rp_ids"
    ]
    with config.open("a") as file:
        file.write('origins = ["https://deploy.example.org"]\nrp_ids = ["deploy.example.org"]\n')
    for words in (("-c", config), ("--file", signers)):  # without settings nobody knows
        listed = json.loads(invoke(keys, "list", *words, "--json").stdout)["keys"]
        assert [key["why_not"] or "" for key in listed] == ["", ""]


@pytest.mark.parametrize("kind", [SK_ED25519, SK_ECDSA])
def test_keys_of_security_keys_are_shown_and_trusted(tmp_path: Path, kind: str) -> None:
    token = SoftwareSecurityKey(kind)
    (tmp_path / "token.pub").write_text(f"{token.public_openssh} a token\n")
    shown = invoke(keys, "show", tmp_path / "token.pub")
    assert (shown.stdout, shown.stderr) == (f"{token.public_openssh} a token\n", f"{token.fingerprint}\n")
    file = tmp_path / "allowed_signers"
    assert "trusts now: ann" in invoke(keys, "trust", "ann", tmp_path / "token.pub", "--file", file).stdout
    assert load_allowed_signers(file).lines_for(token.public_blob)[0].principals == ("ann",)
    (tmp_path / "sig").write_text(armor(token.sign_body(BODY)))
    verified = invoke(message, "verify", "-s", tmp_path / "sig", "-f", file, stdin=BODY)
    assert f"  {kind}, somebody touched it, without PIN or finger\n" in verified.stdout


def test_verify_names_a_missing_signature_file(signers: Path) -> None:
    error = refusal(invoke(message, "verify", "-s", "no-such-file", "-f", signers, stdin=BODY))
    assert "cannot read signature no-such-file" in str(error)


@pytest.mark.parametrize("words", [("sign",), ("verify",)])
def test_help_of_signing_has_an_example(words: tuple[str, ...]) -> None:
    assert "deploykit message" in invoke(message, *words, "--help").output
