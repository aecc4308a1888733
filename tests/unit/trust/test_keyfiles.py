"""Key files: secrets stay secret, trust files stay ours, and nothing is ever overwritten or half written."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.errors import KeyFileError
from deploykit.settings import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import (
    generate_key,
    is_private_key,
    load_allowed_signers,
    load_passphrase,
    load_public_key,
    load_revoked_keys,
    load_signer,
    load_signing_key,
    load_trusted,
    trust,
    trusted_line,
)
from deploykit.trust.keyformat import public_line
from deploykit.trust.signature import SigningKey
from tests.support.certificates import CertificateMaker, krl, packed
from tests.support.keys import fixed_key
from tests.support.needs import needs_root

KEY = fixed_key(1)
OTHER = fixed_key(2)


def written(path: Path, data: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return path


# -- making ---------------------------------------------------------------------------------------------------------


def test_a_new_key_is_0600_whole_and_readable(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        key = generate_key(tmp_path / "key")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert load_signing_key(tmp_path / "key").fingerprint == key.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]
    assert load_public_key(tmp_path / "key.pub")[0] == key.public_blob


def test_a_new_key_can_have_a_passphrase(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "key", passphrase="open sesame")
    with pytest.raises(KeyFileError, match=f"{tmp_path}/key: .*protected"):
        load_signing_key(tmp_path / "key")
    assert load_signing_key(tmp_path / "key", passphrase="open sesame").fingerprint == key.fingerprint


@pytest.mark.parametrize("kind", ["file", "empty file", "directory", "dangling link"])
def test_a_key_never_overwrites_anything(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("precious" if kind == "file" else "")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyFileError, match="exists"):
        generate_key(path)
    assert sorted(tmp_path.iterdir()) == before
    if kind == "file":
        assert path.read_text() == "precious"


def test_a_key_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot write private key"):
        generate_key(tmp_path / "no" / "such" / "key")


def test_a_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def spy(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            steps.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "link"):
        spy(name)
    generate_key(tmp_path / "key")
    assert steps == 2 * ["write", "fsync", "link", "fsync"]


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KeyFileError, match="No space left"):
        generate_key(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


# -- reading secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o700])
def test_a_key_that_only_we_can_read_is_taken(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", KEY.to_openssh(), mode)
    assert load_signing_key(path).fingerprint == KEY.fingerprint


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o602, 0o666, 0o650, 0o641, 0o777])
def test_threat_27_a_key_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", KEY.to_openssh(), mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
        load_signing_key(path)
    assert "chmod 600" in caught.value.remedy


@needs_root("to give files away")
def test_threat_27_0640_is_for_a_group_of_ours_only(tmp_path: Path) -> None:
    path = written(tmp_path / "key", KEY.to_openssh(), 0o640)
    os.chown(path, 0, 54321)
    with pytest.raises(KeyFileError, match="mode 0640"):
        load_signing_key(path)


@needs_root("to give files away")
def test_threat_27_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    key = written(tmp_path / "key", KEY.to_openssh())
    signers = written(tmp_path / "signers", "", 0o644)
    for path in (key, signers):
        os.chown(path, 54321, 0)
    with pytest.raises(KeyFileError, match="user 54321"):
        load_signing_key(key)
    with pytest.raises(KeyFileError, match="user 54321"):
        load_allowed_signers(signers)


def test_a_key_file_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path, says in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "not a regular file"),
        (fifo, "not a regular file"),  # and no hanging on it
        (written(tmp_path / "huge", b"x" * (1 << 17)), "longer than"),
        (written(tmp_path / "text", "no key"), "cannot be read"),
    ):
        with pytest.raises(KeyFileError, match=says) as caught:
            load_signing_key(path)
        assert str(path) in str(caught.value)


def test_a_passphrase_file_is_as_secret_as_a_key(tmp_path: Path) -> None:
    assert load_passphrase(written(tmp_path / "p", "open sesame \r\nmore\n")) == "open sesame "
    with pytest.raises(KeyFileError, match=r"passphrase file .* mode 0644"):
        load_passphrase(written(tmp_path / "p", "canary-4711", 0o644))
    with pytest.raises(KeyFileError, match="empty line"):
        load_passphrase(written(tmp_path / "p", "\nx"))


# -- reading trust ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o602])
def test_threat_27_a_trust_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "signers", f"ops {KEY.public_openssh}\n", mode)
    with pytest.raises(KeyFileError, match="add their own keys"):
        load_allowed_signers(path)
    good = written(tmp_path / "good", "", 0o644)
    with pytest.raises(KeyFileError, match="add their own keys"):
        load_allowed_signers(good, revoked=path)


def test_a_trust_file_may_be_read_by_all(tmp_path: Path) -> None:
    path = written(tmp_path / "signers", f"ops {KEY.public_openssh}\n", 0o644)
    assert len(load_allowed_signers(path).signers) == 1


def test_mistakes_name_the_file_and_each_line(tmp_path: Path) -> None:
    path = written(tmp_path / "signers", "bad\nworse\n", 0o644)
    with pytest.raises(KeyFileError, match=f"{path}: 2 mistakes") as caught:
        load_allowed_signers(path)
    assert len(caught.value.problems) == 2


def test_a_binary_revocation_list_is_read_and_a_broken_one_is_refused_not_ignored(tmp_path: Path) -> None:
    signers = written(tmp_path / "signers", "", 0o644)
    revoked = written(tmp_path / "krl", krl((2, packed(KEY.public_blob))), 0o644)
    assert load_allowed_signers(signers, revoked=revoked).is_revoked(KEY.public_blob)
    assert load_revoked_keys(revoked).has_key(KEY.public_blob)
    for broken in (b"SSHKRL\n\0\xff\xfe", b"\xff\xfe"):
        written(revoked, broken, 0o644)
        with pytest.raises(KeyFileError, match="list of revoked keys"):
            load_allowed_signers(signers, revoked=revoked)


def test_a_certificates_file_signs_by_the_key_next_to_it(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "key", passphrase="secret")
    certificate = CertificateMaker(key=key.public_blob).make()
    path = written(tmp_path / "key-cert.pub", f"{public_line(certificate)} web1\n", 0o644)
    for loaded in (
        load_signing_key(path, passphrase="secret"),
        load_signer(path, passphrase="secret"),
        load_signer(path, passphrase=lambda path, again: "secret"),
    ):
        assert loaded.sign_body(b"body") == key.with_certificate(certificate).sign_body(b"body")
        assert loaded.public_blob == key.public_blob
    assert load_signing_key(tmp_path / "key", passphrase="secret").sign_body(b"body") == key.sign_body(b"body")


def test_a_certificate_of_another_key_or_of_a_strange_kind_is_refused(tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    path = written(tmp_path / "key-cert.pub", public_line(CertificateMaker().make()), 0o644)
    for load in (load_signing_key, load_signer):
        with pytest.raises(KeyFileError, match=f"{path}: the certificate is for key SHA256:"):
            load(path)
        written(path, public_line(CertificateMaker().make()[:-1] + b"\0\0"), 0o644)
        with pytest.raises(KeyFileError, match=f"{path}: not a certificate"):
            load(path)
        written(path, "ssh-rsa-cert-v01@openssh.com AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20=", 0o644)
        with pytest.raises(KeyFileError, match=f"{path}: certificates of type 'ssh-rsa-cert-v01@openssh.com'"):
            load(path)
        written(path, public_line(CertificateMaker().make()), 0o644)


def test_settings_without_a_trust_file_trust_nobody() -> None:
    assert load_trusted(TrustSettings()) == AllowedSigners()


def test_settings_name_signers_and_revoked_keys(tmp_path: Path) -> None:
    signers = written(tmp_path / "signers", f"ops {KEY.public_openssh}\n", 0o644)
    revoked = written(tmp_path / "revoked", KEY.public_openssh, 0o644)
    loaded = load_trusted(TrustSettings(allowed_signers=signers, revoked_keys=revoked))
    assert loaded.is_revoked(KEY.public_blob)
    with pytest.raises(KeyFileError, match="No such file"):
        load_trusted(TrustSettings(allowed_signers=signers, revoked_keys=tmp_path / "gone"))


def test_a_directory_that_is_missing_is_named_as_the_way_out(tmp_path: Path) -> None:
    place = tmp_path / "etc" / "key"
    for write in (lambda: generate_key(place), lambda: trust(place, "ops", KEY.public_blob)):
        with pytest.raises(KeyFileError, match=rf"No such file or directory \(make the directory {place.parent} first"):
            write()


# -- trusting ---------------------------------------------------------------------------------------------------------


def test_trust_makes_the_file_and_adds_a_line_once(tmp_path: Path) -> None:
    path = tmp_path / "allowed_signers"
    assert trust(path, "ops@example.com", KEY.public_blob, "ann's laptop")
    assert not trust(path, "ops@example.com", KEY.public_blob, "another comment")
    assert path.read_text() == f'ops@example.com namespaces="deploykit" {KEY.public_openssh} ann\'s laptop\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["allowed_signers"]


def test_trust_appends_and_keeps_what_is_there(tmp_path: Path) -> None:
    path = written(tmp_path / "allowed_signers", f"# ours\nops {KEY.public_openssh}", 0o600)
    trust(path, "ops", OTHER.public_blob)
    trust(path, "dev", KEY.public_blob)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["# ours", f"ops {KEY.public_openssh}"]
    assert [line.split()[0] for line in lines[2:]] == ["ops", "dev"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_ends_some_day_is_not_the_same_trust(tmp_path: Path) -> None:
    text = f'ops namespaces="deploykit",valid-before="20300101Z" {KEY.public_openssh}\n'
    path = written(tmp_path / "allowed_signers", text, 0o644)
    assert trust(path, "ops", KEY.public_blob)


@pytest.mark.parametrize("name", ["", "a b", "*", "web?", "!ops", "a,b", 'a"b', "#a", "a\nb", "a\x1b", "a\\b"])
def test_a_name_that_would_mean_more_than_itself_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="not a principal"):
        trust(tmp_path / "allowed_signers", name, KEY.public_blob)
    assert list(tmp_path.iterdir()) == []


def test_a_comment_cannot_add_a_line() -> None:
    line = trusted_line("ops", KEY.public_blob, f"x\nevil {OTHER.public_openssh}")
    assert "\n" not in line
    assert len(AllowedSigners.parse(line).signers) == 1


def test_a_file_with_mistakes_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "allowed_signers", "bad\n", 0o644)
    with pytest.raises(KeyFileError, match="line 1"):
        trust(path, "ops", KEY.public_blob)
    assert path.read_text() == "bad\n"


def test_a_file_that_others_can_write_is_not_added_to(tmp_path: Path) -> None:
    path = written(tmp_path / "allowed_signers", "", 0o666)
    with pytest.raises(KeyFileError, match="add their own keys"):
        trust(path, "ops", KEY.public_blob)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "allowed_signers"
    link.symlink_to("real/signers")
    trust(link, "ops", KEY.public_blob)
    assert link.is_symlink()
    assert len(load_allowed_signers(tmp_path / "real" / "signers").signers) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "allowed_signers"
    trust(path, "ops", KEY.public_blob)
    before = path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KeyFileError, match="No space left"):
        trust(path, "dev", OTHER.public_blob)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["allowed_signers"]


def test_many_at_once_all_get_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.trust.signersfile._LOCK_WAIT", 300.0)  # others write to the disk first
    path = tmp_path / "allowed_signers"
    keys = [SigningKey.generate() for _ in range(12)]
    threads = [threading.Thread(target=trust, args=(path, f"p{at}", key.public_blob)) for at, key in enumerate(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line.principals for line in load_allowed_signers(path).signers} == {(f"p{at}",) for at in range(12)}


# -- public keys -------------------------------------------------------------------------------------------------------


def test_private_and_public_files_are_told_apart(tmp_path: Path) -> None:
    private = written(tmp_path / "key", KEY.to_openssh())
    public = written(tmp_path / "key.pub", f"{KEY.public_openssh} ann\n", 0o644)
    assert (is_private_key(private), is_private_key(public)) == (True, False)
    assert load_public_key(public) == (KEY.public_blob, "ann")


@pytest.mark.parametrize("text", ["", "\n", "a\nb\n", "ssh-ed25519", "ssh-ed25519 x", "ssh-rsa AAAA", "\xff"])
def test_what_is_not_one_public_key_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "key.pub", text.encode("latin-1"), 0o644)
    with pytest.raises(KeyFileError, match=f"^{path}"):
        load_public_key(path)


@pytest.mark.parametrize(
    ("signers", "revoked", "named"),
    [
        ("rubbish\n", "", "{0}/signers: line 1"),
        ("", "SSHKRL\nrubbish", "{0}/revoked: the list of revoked keys cannot be read"),
        ("", "rubbish\n", "{0}/revoked: revoked keys, line 1"),
        ("rubbish\n", "rubbish\n", "{0}/signers, {0}/revoked: 2 mistakes"),
    ],
)
def test_the_file_with_the_mistake_is_named(tmp_path: Path, signers: str, revoked: str, named: str) -> None:
    """Nobody is believed until it is mended: who mends it must not look into the other one."""
    for name, text in (("signers", signers), ("revoked", revoked)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    with pytest.raises(KeyFileError) as caught:
        load_allowed_signers(tmp_path / "signers", revoked=tmp_path / "revoked")
    assert caught.value.problem.startswith(named.format(tmp_path))


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "through a link"])
def test_a_list_that_everybody_could_swap_for_an_empty_one_is_refused(tmp_path: Path, linked: bool) -> None:
    """Anybody could put a link to an empty file of root's in its place, and nothing would be revoked."""
    place = tmp_path / "open" / "deeper"
    place.mkdir(parents=True)
    signers, revoked = place / "signers", place / "revoked"
    for path, text in ((signers, ""), (revoked, f"{KEY.public_openssh}\n")):
        path.write_text(text)
        path.chmod(0o644)
    given = revoked
    if linked:
        given = tmp_path / "link"
        given.symlink_to(revoked)
    place.parent.chmod(0o777)
    with pytest.raises(KeyFileError, match="open, which everybody can write"):
        load_allowed_signers(signers, revoked=given)
    with pytest.raises(KeyFileError, match="everybody can write"):
        load_revoked_keys(given)
    place.parent.chmod(0o1777)  # as /tmp: nobody can rename there what is not their own
    assert load_allowed_signers(signers, revoked=given).is_revoked(KEY.public_blob)
