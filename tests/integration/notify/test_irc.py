"""IRC against a real ngircd: TLS, a password, a nick in use, long lines, a server that goes away, a flood."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.notify.irc import IrcChannel
from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.ports import SENT, SendOutcome
from deploykit.daemons.notify.sending import ChannelSender
from deploykit.settings.notify import ChannelSettings
from tests.brokers.certs import Authority
from tests.support.newsworld import NOW, item, proposal, secret_file
from tests.support.ngircd import IrcPeer, Ngircd, running_ngircd
from tests.support.wait import wait_until

SECRET = "s3cr3t w0rd"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def irc(authority: Authority) -> Iterator[Ngircd]:
    with running_ngircd(identity=authority.server("localhost", "127.0.0.1"), password=SECRET) as server:
        yield server


@pytest.fixture
def settings(irc: Ngircd, authority: Authority, tmp_path: Path) -> ChannelSettings:
    return ChannelSettings(
        kind="irc",
        url=f"ircs://localhost:{irc.tls_port}/#ops",
        secret_file=secret_file(tmp_path, SECRET),
        ca_file=authority.ca_file,
        events=("approval",),
    )


def letter(*lines: str) -> NotifyLetter:
    return NotifyLetter(id="1", lines=lines, subject="", time=NOW)


def channel(settings: ChannelSettings, *, pace: float = 0.0) -> closing[IrcChannel]:
    return closing(IrcChannel("ops", settings, ending=threading.Event(), pace=pace))


def test_lines_arrive_over_tls_with_a_password(irc: Ngircd, settings: ChannelSettings) -> None:
    with IrcPeer(irc.port, "ann", password=SECRET) as ann, channel(settings) as ours:
        assert ours.send(letter("hello", "wörld \u200b!")) == SENT
        assert ours.send(letter("again")) == SENT  # over the same session
        wait_until(lambda: len(ann.heard()) == 3, "three lines")
        assert ann.heard() == [("deploykit", "hello"), ("deploykit", "wörld \u200b!"), ("deploykit", "again")]
        assert sum(" JOIN " in line and "deploykit" in line for line in ann.lines) == 1
    assert irc.port != irc.tls_port


def test_a_nick_that_is_taken_gets_a_tail(irc: Ngircd, settings: ChannelSettings) -> None:
    with IrcPeer(irc.port, "deploykit", password=SECRET) as taken, channel(settings) as ours:
        assert ours.send(letter("hello")) == SENT
        wait_until(lambda: taken.heard() == [("deployki_", "hello")], "the line of another nick")


def test_a_long_line_comes_in_parts(irc: Ngircd, settings: ChannelSettings) -> None:
    text = " ".join(f"wörter-{number}" for number in range(80))
    with IrcPeer(irc.port, "ann", password=SECRET) as ann, channel(settings) as ours:
        assert ours.send(letter(text)) == SENT
        wait_until(lambda: len(ann.heard()) == 3, "its parts")
        assert " ".join(part for _, part in ann.heard()) == text


def test_a_wrong_password_and_a_certificate_that_nobody_vouches_for(settings: ChannelSettings, tmp_path: Path) -> None:
    wrong = attrs.evolve(settings, secret_file=secret_file(tmp_path, "wrong one", "wrong"))
    with channel(wrong) as ours:
        outcome = ours.send(letter("x"))
    assert outcome.kind == "later"
    assert "password" in outcome.why.lower()
    assert "wrong one" not in outcome.why
    other = attrs.evolve(settings, ca_file=Authority(tmp_path / "other").ca_file)
    with channel(other) as ours:
        outcome = ours.send(letter("x"))
    assert "has no trusted certificate" in outcome.why
    named = attrs.evolve(settings, url=settings.url.replace("localhost", "127.0.0.2"))
    with channel(named) as ours:
        assert ours.send(letter("x")).kind == "later"  # nobody listens there, and the certificate has other names


def test_a_channel_that_may_not_be_entered_or_written_to(irc: Ngircd, settings: ChannelSettings) -> None:
    with IrcPeer(irc.port, "boss", "#closed", password=SECRET) as boss:
        boss.say("MODE #closed +i")
        wait_until(lambda: boss.has("MODE #closed +i"), "the mode")
        closed = attrs.evolve(settings, url=settings.url.replace("#ops", "#closed"))
        with channel(closed) as ours:
            outcome = ours.send(letter("x"))
            assert (outcome.kind, outcome.wait) == ("later", 60.0)
            assert "by invitation only" in outcome.why
        boss.say("MODE #closed -i+m")
        wait_until(lambda: boss.has("-i+m"), "the other mode")
        with channel(closed) as ours:
            outcome = ours.send(letter("x"))
            assert "may not write to the channel" in outcome.why
        assert boss.heard() == []


def test_after_a_kick_the_next_line_joins_again(irc: Ngircd, settings: ChannelSettings) -> None:
    kick = attrs.evolve(settings, url=settings.url.replace("#ops", "#kick"))
    with IrcPeer(irc.port, "boss", "#kick", password=SECRET) as boss, channel(kick) as ours:
        assert ours.send(letter("one")) == SENT
        boss.say("KICK #kick deploykit :out")
        wait_until(lambda: boss.has("KICK #kick deploykit"), "the kick")
        outcome = ours.send(letter("two"))
        assert outcome.kind == "later"
        assert "kicked out of the channel by boss" in outcome.why
        assert ours.send(letter("two")) == SENT
        wait_until(lambda: ("deploykit", "two") in boss.heard(), "the line after the kick")


def test_a_server_that_goes_away_loses_nothing(tmp_path: Path) -> None:
    server, ending, sends = Ngircd(), threading.Event(), threading.Lock()
    settings = ChannelSettings(kind="irc", url=f"irc://127.0.0.1:{server.port}/#ops", events=("approval",))

    class InTurn(IrcChannel):
        def send(self, letter: NotifyLetter) -> SendOutcome:
            with sends:
                return super().send(letter)

    channel = InTurn("ops", settings, ending=ending, pace=0.0)
    sender = ChannelSender("ops", settings, channel, keep=3600.0, chance=lambda: 0.0)
    thread = threading.Thread(target=sender.run, args=(ending,))
    try:
        server.start()
        thread.start()
        with IrcPeer(server.port, "ann") as ann:
            sender.take(item(proposal(rollout="r-1")))
            wait_until(lambda: len(ann.heard()) == 1, "the first line")
        server.stop()
        sender.take(item(proposal(rollout="r-2")))
        wait_until(lambda: sender.problem, "the loss is noticed")
        with sends:  # no attempt is under way, and none begins before ann can hear it
            server.start()
            ann = IrcPeer(server.port, "ann")
        with ann:
            wait_until(lambda: len(ann.heard()) >= 1, "the second line, after the restart")
        wait_until(lambda: not sender.problem, "it goes on")
    finally:
        ending.set()
        sender.wake()
        thread.join(30)
        sender.close()
        server.remove()


def test_an_idle_session_answers_the_server_s_pings(irc: Ngircd, settings: ChannelSettings) -> None:
    """The server of these tests ends a session that does not answer a PING within some seconds."""
    ending = threading.Event()
    sender = ChannelSender("ops", settings, IrcChannel("ops", settings, ending=ending), keep=60.0)
    counted: list[int] = []
    channel = sender._channel
    tend = channel.tend
    channel.tend = lambda: (tend(), counted.append(1))[0]  # type: ignore[method-assign,func-returns-value]  # counts
    thread = threading.Thread(target=sender.run, args=(ending,))
    thread.start()
    try:
        with IrcPeer(irc.port, "ann", password=SECRET) as ann:
            sender.take(item(proposal()))
            wait_until(lambda: len(ann.heard()) == 1, "the line")
            wait_until(lambda: len(counted) >= 2, "two PINGs, or the end of the session")
            sender.take(item(proposal(rollout="r-9", reason="later")))
            wait_until(lambda: len(ann.heard()) == 2, "the next line")
            assert sum(" JOIN " in line and "deploykit" in line for line in ann.lines) == 1
    finally:
        ending.set()
        sender.wake()
        thread.join(30)
        sender.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 20000, b":x 001 \r\n" * 3])
def test_what_is_no_irc_server_is_given_up_in_time(answer: bytes) -> None:
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        settings = ChannelSettings(kind="irc", url=f"irc://127.0.0.1:{port}/#ops")
        with closing(IrcChannel("ops", settings, ending=ending, pace=0.0)) as ours:
            outcome = ours.send(letter("x"))
        thread.join(20)
    assert outcome.kind == "later"
    assert str(port) in outcome.why


def test_the_end_of_the_service_ends_a_login_that_nobody_answers() -> None:
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = ChannelSettings(kind="irc", url=f"irc://127.0.0.1:{listening.getsockname()[1]}/#ops")
        with closing(IrcChannel("ops", settings, ending=ending)) as ours:
            ending.set()
            assert "the service ends" in ours.send(letter("x")).why


def test_tls_is_never_left_out() -> None:
    settings = ChannelSettings(kind="irc", url="ircs://localhost/#ops")
    context = IrcChannel("ops", settings, ending=threading.Event())._context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("right", [True, False])
def test_a_login_by_sasl_over_a_real_connection(tmp_path: Path, right: bool) -> None:
    """ngircd has no SASL, so the server is a script of ours."""
    password = SECRET if right else "wrong"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        lines: list[str] = []
        thread = threading.Thread(target=_sasl_server, args=(listening, lines))
        thread.start()
        settings = ChannelSettings(
            kind="irc",
            url=f"irc://127.0.0.1:{listening.getsockname()[1]}/#ops",
            user="dk",
            secret_file=secret_file(tmp_path, password),
        )
        with channel(settings) as ours:
            outcome = ours.send(letter("hello"))
        thread.join(20)
    assert not any(line.startswith("PASS") for line in lines)
    if right:
        assert outcome == SENT
        assert "PRIVMSG #ops :hello" in lines
    else:
        assert "the login was refused" in outcome.why
        assert "wrong" not in outcome.why


def _sasl_server(listening: socket.socket, lines: list[str]) -> None:
    """Serve one client that logs in as `dk` with the password of these tests."""
    good = base64.b64encode(f"\0dk\0{SECRET}".encode()).decode()
    answers = {
        "CAP LS 302": ":srv CAP * LS :sasl=PLAIN",
        "CAP REQ :sasl": ":srv CAP * ACK :sasl",
        "AUTHENTICATE PLAIN": "AUTHENTICATE +",
        f"AUTHENTICATE {good}": ":srv 903 dk :ok",
        "CAP END": ":srv 001 dk :Welcome",
        "JOIN #ops": ":dk!dk@h JOIN #ops",
    }
    sock, _ = listening.accept()
    with sock, sock.makefile("r", encoding="utf-8") as stream:
        for line in stream:
            lines.append(line.rstrip("\r\n"))
            verb, _, rest = lines[-1].partition(" ")
            answer = f":srv PONG srv {rest}" if verb == "PING" else answers.get(lines[-1])
            if verb == "AUTHENTICATE" and answer is None:
                answer = ":srv 904 dk :no"
            if answer is not None:
                sock.sendall(f"{answer}\r\n".encode())
