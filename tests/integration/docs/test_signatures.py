"""docs/signatures.md keeps its word: its example is run, its values are ours, its settings are accepted."""

from __future__ import annotations

import re
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.cli.message_signing import verify as verify_command
from deploykit.config import parse_settings
from deploykit.errors import KeyNotTrusted
from deploykit.messages import DeployRequested
from deploykit.names import NodeName
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import load_allowed_signers, load_public_key, load_signing_key, trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import HEADER, sign, verify
from deploykit.trust.sshsig import decode_header
from deploykit.wire import Frame, decode, encode
from tests.support.needs import needs

PAGE = (Path(__file__).parents[3] / "docs" / "signatures.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^ *```{kind}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The page's shell blocks, run one after the other as a reader would; the directory, and what they printed."""
    keygen = needs("ssh-keygen", package="openssh-client")
    directory = tmp_path_factory.mktemp("example")
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(blocks("sh"))],
        cwd=directory,
        env={"PATH": f"{keygen.parent}:/usr/bin:/bin", "HOME": str(directory), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


def example_frame(directory: Path) -> Frame:
    (value,) = re.findall(r"^header='(.*)'$", PAGE, re.MULTILINE)
    headers = {"content-type": "application/cloudevents+json", HEADER: value}
    return Frame(headers, (directory / "body.json").read_bytes())


def test_ssh_keygen_says_what_the_page_says_it_does(ran: tuple[Path, str]) -> None:
    (promised,) = [block for block in blocks("text") if block.startswith("Good")]
    assert ran[1] == promised


def test_the_example_is_what_we_write_and_accept(ran: tuple[Path, str]) -> None:
    frame = example_frame(ran[0])
    now = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
    signer = verify(frame, AllowedSigners.parse((ran[0] / "allowed_signers").read_text()), now)
    message = decode(frame.headers, frame.body)
    assert isinstance(message, DeployRequested)
    assert encode(message).body == frame.body
    Policy(grants=parse_settings(settings_example()).trust.grants).authorize(message, signer, NodeName("web1"), now)


def test_the_header_has_the_size_and_form_the_page_says() -> None:
    (value,) = re.findall(r"^header='(.*)'$", PAGE, re.MULTILINE)
    assert f"{len(value)} characters" in PAGE
    assert f"The blob is {len(decode_header(value))} bytes" in PAGE


def test_a_header_made_with_ssh_keygen_is_accepted(ran: tuple[Path, str], tmp_path: Path) -> None:
    directory, _ = ran
    name, _, value = (directory / "mine.header").read_text().strip().partition(":")
    public, comment = load_public_key(directory / "key.pub")
    trust(tmp_path / "allowed_signers", "you@example.com", public, comment)
    allowed = AllowedSigners.parse((tmp_path / "allowed_signers").read_text())
    frame = Frame({name: value}, (directory / "body.json").read_bytes())
    assert verify(frame, allowed, datetime.now(UTC)).is_principal("you@example.com")
    words = [directory / "body.json", "--signature", directory / "mine.header"]
    words += ["--allowed-signers", tmp_path / "allowed_signers"]
    verify_command.main([str(word) for word in words], standalone_mode=False)


def test_the_certificate_on_the_page_signs_until_it_is_revoked(ran: tuple[Path, str]) -> None:
    directory, _ = ran
    line = directory / "allowed_by_authority"
    frame = sign(example_frame(directory), load_signing_key(directory / "web1-cert.pub"))
    assert verify(frame, load_allowed_signers(line), datetime.now(UTC)).is_principal("web1")
    with pytest.raises(KeyNotTrusted, match="revoked by its serial"):
        verify(frame, load_allowed_signers(line, revoked=directory / "revoked_keys"), datetime.now(UTC))


def settings_example() -> bytes:
    return "\n".join(blocks("toml")).encode()


def test_the_settings_on_the_page_are_accepted() -> None:
    assert tomllib.loads(settings_example().decode())["trust"]["skew"] == 30
    policy = Policy.from_settings(parse_settings(settings_example()).trust)
    assert [grant.principal for grant in policy.grants] == [
        "ops@example.com",
        "night@example.com",
        "jenkins",
        "oncall@example.com",
        "oncall@example.com",
        "ann@example.com",
        "coordinator",
        "gateway",
    ]
