"""ssh-keygen is the oracle: it takes what we sign, we take what it signs, and trust files mean the same to both."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import KeyFileError, SignatureError
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import generate_key, load_public_key, load_signing_key, trust
from deploykit.trust.signature import HEADER, Signers, SigningKey, sign, verify, verify_blob
from deploykit.trust.sshsig import armor, dearmor, decode_header, encode_header
from deploykit.wire.frame import Frame
from tests.support.keys import fixed_key
from tests.support.sshkeygen import SshKeygen

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AT = "20260301120000Z"
BODY = b'{"specversion":"1.0","id":"1"}'
KEY = fixed_key(1)
OTHER = fixed_key(2)
PUB = KEY.public_openssh


@pytest.fixture(scope="module")
def keygen(tmp_path_factory: pytest.TempPathFactory) -> SshKeygen:
    return SshKeygen(tmp_path_factory.mktemp("ssh-keygen"))


def ours(body: bytes = BODY, key: SigningKey = KEY) -> str:
    return armor(decode_header(sign(Frame({}, body), key).headers[HEADER]))


# -- signatures, both ways -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", BODY, b"\n\0\xff\r\n", bytes(range(256)) * 4096])
def test_ssh_keygen_accepts_our_signatures(keygen: SshKeygen, body: bytes) -> None:
    done = keygen.verify(body, ours(body), f'ops namespaces="deploykit" {PUB}\n', principal="ops")
    assert done.returncode == 0, done.stderr
    assert KEY.fingerprint in done.stdout.decode()
    assert keygen.check(body, ours(body)).returncode == 0


def test_ssh_keygen_finds_fault_with_what_we_refuse(keygen: SshKeygen) -> None:
    assert keygen.verify(BODY + b" ", ours(), f"ops {PUB}\n", principal="ops").returncode != 0
    assert keygen.check(BODY + b" ", ours()).returncode != 0
    assert keygen.check(BODY, ours(), namespace="git").returncode != 0


@pytest.mark.parametrize("body", [b"", b"x", BODY, b"\n\0\xff\r\n", bytes(range(256)) * 4096])
def test_we_accept_the_signatures_of_ssh_keygen(keygen: SshKeygen, tmp_path: Path, body: bytes) -> None:
    key = SshKeygen(tmp_path).generate("theirs")
    blob = dearmor(keygen.sign(key, body))
    public, comment = load_public_key(key.with_suffix(".pub"))
    assert comment == "made here"
    trust(tmp_path / "allowed", "ops", public, comment)
    allowed = AllowedSigners.parse((tmp_path / "allowed").read_text())
    assert verify_blob(body, blob, allowed, NOW).is_principal("ops")
    assert verify(Frame({HEADER: encode_header(blob)}, body), allowed, NOW).is_principal("ops")


def test_both_sign_the_same_bytes(keygen: SshKeygen, tmp_path: Path) -> None:
    """Ed25519 has no chance in it: the same key and body give the same file."""
    generate_key(tmp_path / "key")
    assert keygen.sign(tmp_path / "key", BODY) == ours(key=load_signing_key(tmp_path / "key"))


@pytest.mark.parametrize(
    ("kind", "options", "namespace", "says"),
    [
        ("ed25519", (), "git", "namespace 'git'"),
        ("ed25519", (), "file", "namespace 'file'"),
        ("ed25519", ("-Ohashalg=sha256",), "deploykit", "hash is 'sha256'"),
        ("rsa", (), "deploykit", "only ssh-ed25519"),
        ("ecdsa", (), "deploykit", "only ssh-ed25519"),
    ],
)
def test_we_refuse_its_signatures_of_another_kind(
    keygen: SshKeygen, tmp_path: Path, kind: str, options: tuple[str, ...], namespace: str, says: str
) -> None:
    key = SshKeygen(tmp_path).generate("theirs", kind=kind)
    blob = dearmor(keygen.sign(key, BODY, *options, namespace=namespace))
    allowed = AllowedSigners.parse(f"* {key.with_suffix('.pub').read_text()}")
    with pytest.raises(SignatureError, match=says):
        verify_blob(BODY, blob, allowed, NOW)


# -- key files, both ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_we_read_the_keys_of_ssh_keygen(tmp_path: Path, passphrase: str) -> None:
    path = SshKeygen(tmp_path).generate("theirs", passphrase=passphrase)
    key = load_signing_key(path, passphrase=passphrase or None)
    assert key.public_blob == load_public_key(path.with_suffix(".pub"))[0]
    if passphrase:
        with pytest.raises(KeyFileError, match="protected"):
            load_signing_key(path)


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_ssh_keygen_reads_our_keys(keygen: SshKeygen, tmp_path: Path, passphrase: str) -> None:
    key = generate_key(tmp_path / "ours", passphrase=passphrase or None)
    assert keygen.run("-y", "-P", passphrase, "-f", tmp_path / "ours").stdout.decode().split()[:2] == (
        key.public_openssh.split()
    )
    assert key.fingerprint in keygen.run("-l", "-f", tmp_path / "ours").stdout.decode()
    if passphrase:
        assert keygen.run("-y", "-P", "wrong", "-f", tmp_path / "ours").returncode != 0


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_keys_of_ssh_keygen_are_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    path = SshKeygen(tmp_path).generate("theirs", kind=kind)
    with pytest.raises(KeyFileError, match=r"not an Ed25519 key .*keys generate"):
        load_signing_key(path)


# -- trust files -----------------------------------------------------------------------------------------------------


def we_say(text: str, principal: str, now: datetime = NOW, revoked: str = "") -> Signers | str:
    """The signer when we believe `principal` signed; otherwise why not."""
    try:
        signer = verify(sign(Frame({}, BODY), KEY), AllowedSigners.parse(text, revoked=revoked, zone=UTC), now)
    except (KeyFileError, SignatureError) as error:
        return str(error)
    return signer if signer.is_principal(principal) else "somebody else"


SAME = [
    f"ops {PUB}",
    f"ops {PUB} a comment",
    f"  ops\t{PUB}",
    f"dev,ops {PUB}",
    f"dev {PUB}",
    f"*ps {PUB}",
    f"o?s,!dev {PUB}",
    f"*,!ops {PUB}",
    f"!ops,* {PUB}",
    f"!dev {PUB}",
    f"OPS {PUB}",
    f'"ops" {PUB}',
    f'"dev,ops" {PUB}',
    f'"dev ops" {PUB}',
    f'ops namespaces="deploykit" {PUB}',
    f'ops NameSpaces="git,deploy*" {PUB}',
    f'ops namespaces="git" {PUB}',
    f'ops namespaces="" {PUB}',
    f'ops namespaces="*,!deploykit" {PUB}',
    f"ops namespaces=deploykit {PUB}",
    f'ops namespaces="deploykit {PUB}',
    f'ops namespaces="deploykit",namespaces="git" {PUB}',
    f'ops namespaces="deploykit", {PUB}',
    f'ops namespaces="a\\"b,deploykit" {PUB}',
    f'ops namespaces="a b,deploykit" {PUB}',
    f'ops valid-after="20260301120000Z" {PUB}',
    f'ops valid-after="20260301120001Z" {PUB}',
    f'ops valid-before="20260301120000Z" {PUB}',
    f'ops valid-before="20260301115959Z" {PUB}',
    f'ops valid-after="202603011200",valid-before="202603011201" {PUB}',
    f'ops valid-after="20260301" {PUB}',
    f'ops valid-after="20260302" {PUB}',
    f'ops valid-after="20260301UTC" {PUB}',
    f'ops valid-after="20260301z" {PUB}',
    f'ops valid-after="2026-03-01" {PUB}',
    f'ops valid-after="" {PUB}',
    f'ops valid-after="19691231Z" {PUB}',
    f'ops valid-after="19700101Z" {PUB}',
    f'ops valid-after="19700101000001Z" {PUB}',
    f'ops valid-before="19700101Z" {PUB}',
    f'ops valid-after="20260102Z",valid-before="20260101Z" {PUB}',
    f"ops valid-after=20260101Z {PUB}",
    f'ops unknown="x" {PUB}',
    f"ops cert-authority {PUB}",
    f"ops {PUB}=",
    f"ops {PUB[:-4]}",
    f"ops {PUB}AAAA",
    f"ops {PUB}#comment",
    f"ops {OTHER.public_openssh}",
    f"ops ssh-rsa {PUB.split()[1]}",
    f"#ops {PUB}",
    f"ops, dev {PUB}",
    "ops",
    "",
]


@pytest.mark.parametrize("line", SAME)
def test_a_trust_line_means_the_same_to_ssh_keygen(keygen: SshKeygen, line: str) -> None:
    said = we_say(line, "ops")
    done = keygen.verify(BODY, ours(), line + "\n", principal="ops", at=AT)
    assert isinstance(said, Signers) is (done.returncode == 0), (said, done.stderr)


#: ssh-keygen takes these; we ask the author to write what he means.
STRICTER = [
    f'ops ,namespaces="deploykit" {PUB}',
    f'ops namespaces="deploykit",,valid-after="20260101Z" {PUB}',
    f",ops {PUB}",
    f"ops,,dev {PUB}",
    f'o"ps" {PUB}',
    f'ops valid-after="20260230Z" {PUB}',
    f'ops valid-after="20260101120060Z" {PUB}',
]


@pytest.mark.parametrize("line", STRICTER)
def test_we_are_stricter_only_where_we_know(keygen: SshKeygen, line: str) -> None:
    assert not isinstance(we_say(line, "ops"), Signers)
    assert keygen.verify(BODY, ours(), line + "\n", principal="ops", at="20260303Z").returncode == 0


_NAMES = st.sampled_from(["ops", "dev", "*", "o*", "!ops", "!dev", "?ps", "op?", '"', "ops dev"])
_PRINCIPALS = st.lists(_NAMES, min_size=1, max_size=3).map(",".join)
_TIMES = st.sampled_from(
    ["20260301120000Z", "20260301115959Z", "20260301120001Z", "20260301", "202603011200", "20271301", "2027", "x", ""]
)
_OPTIONS = st.one_of(
    st.sampled_from(["deploykit", "git", "deploy*", "*,!deploykit", "git,deploykit", ""]).map('namespaces="{}"'.format),
    _TIMES.map('valid-after="{}"'.format),
    _TIMES.map('Valid-Before="{}"'.format),
    st.sampled_from(["cert-authority", "namespaces=deploykit", "nonsense", 'valid-after="20260101']),
)
_LINES = st.tuples(
    st.one_of(_PRINCIPALS, _PRINCIPALS.map('"{}"'.format)),
    st.sampled_from([" ", "\t", "  "]),
    st.lists(_OPTIONS, max_size=3).map(",".join),
    st.sampled_from([" ", "\t", " \t "]),
    st.sampled_from([PUB, PUB, PUB, OTHER.public_openssh, PUB[:-1], "ssh-ed25519", PUB.replace(" ", "\t")]),
    st.sampled_from(["", " comment", "\tcomment of words", " "]),
).map("".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=_LINES, principal=st.sampled_from(["ops", "dev"]))
def test_whom_we_believe_ssh_keygen_believes(keygen: SshKeygen, line: str, principal: str) -> None:
    """And the other way round, save where a principal is empty or oddly quoted, or a date is impossible."""
    said = we_say(line, principal)
    done = keygen.verify(BODY, ours(), line + "\n", principal=principal, at=AT)
    if isinstance(said, Signers):
        assert done.returncode == 0, (line, done.stderr)
    elif done.returncode == 0:
        assert any(odd in said for odd in ("an empty principal", "the principals", "calendar")), (line, said)


@pytest.mark.parametrize("seconds", [-2, -1, 0, 1, 2])
def test_the_edges_of_a_keys_time_are_the_same_second(keygen: SshKeygen, seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    for option in (f'valid-after="{AT}"', f'valid-before="{AT}"'):
        line = f"ops {option} {PUB}"
        done = keygen.verify(BODY, ours(), line + "\n", principal="ops", at=f"{now:%Y%m%d%H%M%SZ}")
        assert isinstance(we_say(line, "ops", now), Signers) is (done.returncode == 0)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "UTC"])
@pytest.mark.parametrize("local", ["202603011200", "202607011200"])  # winter, and summer time
def test_times_without_a_zone_are_local_standard_time_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, local: str
) -> None:
    there = SshKeygen(tmp_path, zone=zone)
    line = f'ops valid-after="{local}" {PUB}'
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        by_machine = AllowedSigners.parse(line)
    finally:
        monkeypatch.undo()
        time.tzset()
    by_zone = AllowedSigners.parse(line, zone=ZoneInfo(zone))
    assert by_machine == by_zone
    edge = by_zone.signers[0].valid_after
    assert edge is not None
    for now, counts in ((edge - timedelta(seconds=1), False), (edge, True)):
        done = there.verify(BODY, ours(), line + "\n", principal="ops", at=f"{now:%Y%m%d%H%M%SZ}")
        assert (done.returncode == 0) is counts, done.stderr


def test_revoked_keys_are_revoked_for_both(keygen: SshKeygen) -> None:
    line = f"ops {PUB}\n"
    for revoked, believed in ((f"{PUB}\n", False), (f"# lost\n{OTHER.public_openssh} old\n", True)):
        done = keygen.verify(BODY, ours(), line, principal="ops", at=AT, revoked=revoked)
        assert (done.returncode == 0) is believed
        assert isinstance(we_say(line, "ops", revoked=revoked), Signers) is believed
