"""E-mail to a real SMTP server (a stub of ours): TLS, login, headers that nobody can add to, refusals."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.notify.letters import NotifyLetter, letter_of
from deploykit.daemons.notify.mail import MailChannel
from deploykit.daemons.notify.ports import SENT
from deploykit.daemons.notify.waiting import NotifyBatch
from deploykit.settings.notify import ChannelSettings
from tests.brokers.certs import Authority
from tests.support.newsworld import NOW, secret_file, waiting
from tests.support.ports import free_port
from tests.support.smtpstub import StubMailServer, running_mail_server

SETTINGS = ChannelSettings(
    kind="email", url="smtp://127.0.0.1", sender="deploykit@example.org", to=("ops@example.org", "ann@example.org")
)
LETTER = NotifyLetter(id="abc", lines=("rollout failed: süß", "see @here"), subject="[deploykit] süß", time=NOW)


def settings(
    server: StubMailServer, *, scheme: str = "smtp", host: str = "127.0.0.1", **more: object
) -> ChannelSettings:
    return attrs.evolve(SETTINGS, url=f"{scheme}://{host}:{server.port}", **more)  # type: ignore[arg-type]  # by name


def channel(found: ChannelSettings) -> MailChannel:
    return MailChannel("mail", found, host="hub.example.org")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def context(authority: Authority) -> ssl.SSLContext:
    identity = authority.server("localhost", "127.0.0.1")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(identity.cert_file, identity.key_file)
    return made


def test_a_mail_arrives_as_plain_text_with_its_headers() -> None:
    with running_mail_server(StubMailServer()) as server:
        assert channel(settings(server)).send(LETTER) == SENT
    (mail,) = server.mails
    assert (mail.sender, mail.to) == ("deploykit@example.org", ["ops@example.org", "ann@example.org"])
    message = mail.message
    assert message["Subject"] == "[deploykit] süß"
    assert message["Message-ID"] == "<abc@hub.example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["To"] == "ops@example.org, ann@example.org"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().splitlines() == ["rollout failed: süß", "see @here"]


@pytest.mark.parametrize(
    "hostile", ["a\r\nBcc: eve@example.org", "a\nSubject: b", "a\r\n\r\nbody", "x" * 5000, "\x00\x07"]
)
def test_no_text_adds_a_header_or_ends_the_body(hostile: str) -> None:
    line = waiting(f"{hostile}\r\n.\r\nMAIL FROM:<eve@example.org>")
    letter = letter_of(NotifyBatch(id="1", lines=(line, line)), "email", NOW)
    with running_mail_server(StubMailServer()) as server:
        assert channel(settings(server)).send(letter) == SENT
    (mail,) = server.mails
    assert mail.to == ["ops@example.org", "ann@example.org"]
    assert set(mail.message.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
        *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    }
    assert "\n" not in mail.message["Subject"]
    assert len(mail.message["Subject"]) <= 200


@pytest.mark.parametrize("at_once", [False, True])
def test_the_login_goes_over_tls_that_is_verified(authority: Authority, tmp_path: Path, at_once: bool) -> None:
    server = StubMailServer(tls=context(authority), at_once=at_once, login="dk:s3cr3t pass")
    secret = secret_file(tmp_path, "s3cr3t pass")
    with running_mail_server(server):
        found = settings(
            server,
            scheme="smtps" if at_once else "smtp",
            host="localhost",
            user="dk",
            secret_file=secret,
            ca_file=authority.ca_file,
        )
        assert channel(found).send(LETTER) == SENT
        stranger = attrs.evolve(found, ca_file=Authority(tmp_path / "other").ca_file)
        outcome = channel(stranger).send(LETTER)
        assert outcome.kind == "later"
        assert "has no trusted certificate" in outcome.why
        wrong = attrs.evolve(found, secret_file=secret_file(tmp_path, "n0t it", "wrong"))
        outcome = channel(wrong).send(LETTER)
        assert (outcome.kind, outcome.wait) == ("later", 60.0)
        assert "refused the login: 535" in outcome.why
        assert "n0t it" not in outcome.why  # the stub sends it back
    (mail,) = server.mails
    assert (mail.secure, mail.user) == (True, "dk")


def test_a_server_elsewhere_without_starttls_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_mail_server(StubMailServer()) as server:
        monkeypatch.setattr("deploykit.daemons.notify.mail.is_loopback", lambda _: False)
        outcome = channel(settings(server)).send(LETTER)
    assert outcome.kind == "later"
    assert "does not offer STARTTLS" in outcome.why
    assert server.mails == []


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"MAIL": ["451 later"]}, "later"),
        ({"MAIL": ["550 never"]}, "refused"),
        ({"MAIL": ["530 log in"]}, "later"),
        ({"RCPT": ["550 no", "550 no"]}, "refused"),
        ({"RCPT": ["450 busy", "450 busy"]}, "later"),
        ({".": ["554 spam: deploykit@example.org"]}, "refused"),
        ({".": ["452 disk full"]}, "later"),
        ({"DATA": ["451 no"]}, "later"),
    ],
)
def test_what_an_answer_means(answers: dict[str, list[str]], kind: str) -> None:
    with running_mail_server(StubMailServer(answers=answers)) as server:
        outcome = channel(settings(server)).send(LETTER)
    assert outcome.kind == kind
    assert "spam" not in outcome.why


def test_one_recipient_that_is_refused_is_named_and_the_others_get_it() -> None:
    with running_mail_server(StubMailServer(answers={"RCPT": ["550 no"]})) as server:
        outcome = channel(settings(server)).send(LETTER)
    assert outcome.kind == "sent"
    assert outcome.why.endswith("refused some recipients: ops@example.org")


def test_nobody_listens() -> None:
    outcome = channel(settings(StubMailServer(port=free_port()))).send(LETTER)
    assert outcome.kind == "later"
    assert "cannot be reached" in outcome.why


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a server that does with one connection what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # the client ends the connection while it is written to
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(20)
        assert not thread.is_alive()


def test_a_server_that_drips_holds_its_channel_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.daemons.notify.mail._EXCHANGE", 1.0)

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"220-")
        ended = threading.Event()
        while not ended.wait(0.1):  # each byte comes long before the deadline of one step
            connection.sendall(b"x")

    with raw_server(drip) as port:
        began = time.monotonic()
        outcome = channel(attrs.evolve(SETTINGS, url=f"smtp://127.0.0.1:{port}")).send(LETTER)
        assert time.monotonic() - began < 60  # it drips for ever
    assert (outcome.kind, outcome.why) == ("later", f"127.0.0.1:{port}: did not answer in time")


def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.daemons.notify.mail._EXCHANGE", 300.0)
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"220 stub\r\n")
        connection.recv(1000)
        while True:
            sent += connection.send(b"250-MORE\r\n" * 1000)

    with raw_server(flood) as port:
        outcome = channel(attrs.evolve(SETTINGS, url=f"smtp://127.0.0.1:{port}")).send(LETTER)
    assert (outcome.kind, outcome.why) == ("later", f"127.0.0.1:{port}: answers without an end")
    assert sent < 64 * 2**20


@pytest.mark.parametrize("answer", ["421 going down", "500 what?"])
def test_what_a_server_answers_to_quit_changes_nothing(answer: str) -> None:
    with running_mail_server(StubMailServer(answers={"QUIT": [answer]})) as server:
        assert channel(settings(server)).send(LETTER) == SENT
    assert len(server.mails) == 1
