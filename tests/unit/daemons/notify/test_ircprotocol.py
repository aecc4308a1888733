"""The session with an IRC server: login, nicks, refusals, and what hostile bytes can do, which is nothing."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.notify.ircprotocol import MOST_LINE, MOST_PARTS, MOST_TEXT, IrcSession, parse_irc, parts_of


def session(**changes: str) -> IrcSession:
    return IrcSession(changes.pop("nick", "deploykit"), "#ops", **changes)


def feed(one: IrcSession, *lines: str) -> list[str]:
    """Give a session lines of the server; return what it answers."""
    data = "".join(f"{line}\r\n" for line in lines).encode()
    return [line.decode().removesuffix("\r\n") for line in one.receive(data)]


def joined(**changes: str) -> IrcSession:
    one = session(**changes)
    one.begin()
    feed(one, ":srv CAP * LS :multi-prefix", ":srv 001 deploykit :Welcome", ":deploykit!d@h JOIN :#ops")
    assert one.state == "joined"
    return one


def test_a_login_without_a_password() -> None:
    one = session()
    assert one.begin() == (b"CAP LS 302\r\n",)
    answers = feed(one, ":srv CAP * LS :multi-prefix")
    assert answers == ["NICK deploykit", "USER deploykit 0 * :deploykit", "CAP END"]
    assert feed(one, ":srv 001 deploykit :Welcome") == ["JOIN #ops"]
    assert feed(one, ":deploykit!d@host JOIN :#ops") == []
    assert one.state == "joined"


def test_a_password_goes_as_pass_where_there_is_no_sasl() -> None:
    one = session(password="s3cret")
    assert feed(one, ":srv CAP * LS :multi-prefix")[0] == "PASS :s3cret"


def test_a_password_goes_by_sasl_where_the_server_offers_it() -> None:
    one = session(nick="dk", user="dk", password="s3cret")
    assert feed(one, ":srv CAP * LS * :a b", ":srv CAP * LS :sasl=PLAIN,EXTERNAL")[:1] == ["CAP REQ :sasl"]
    assert feed(one, ":srv CAP * ACK :sasl") == ["AUTHENTICATE PLAIN"]
    (answer,) = feed(one, "AUTHENTICATE +")
    assert base64.b64decode(answer.partition(" ")[2]) == b"\0dk\0s3cret"
    assert feed(one, ":srv 903 dk :ok") == ["CAP END"]
    assert feed(one, ":srv 001 dk :Welcome") == ["JOIN #ops"]


def test_a_sasl_answer_of_exactly_400_bytes_is_ended_by_a_plus() -> None:
    one = session(nick="u", user="u", password="p" * (300 - 3))
    feed(one, ":srv CAP * LS :sasl", ":srv CAP * ACK :sasl")
    answers = feed(one, "AUTHENTICATE +")
    assert [len(line.partition(" ")[2]) for line in answers] == [400, 1]


def test_sasl_without_plain_is_not_used() -> None:
    one = session(user="dk", password="x")
    assert feed(one, ":srv CAP * LS :sasl=EXTERNAL")[0] == "PASS :x"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([":srv CAP * LS :sasl", ":srv CAP * ACK :sasl", ":srv 904 * :no"], "the login was refused"),
        ([":srv CAP * LS :sasl", ":srv CAP * NAK :sasl"], "takes no login"),
        ([":srv CAP * LS :x", ":srv 464 * :Password incorrect"], "the password is wrong"),
        ([":srv CAP * LS :x", "ERROR :Closing link: banned"], "the server ends the session: Closing link: banned"),
        ([":srv CAP * LS :x", ":srv 001 d :hi", ":srv 474 d #ops :banned"], "banned from the channel"),
    ],
)
def test_what_is_refused_is_named(lines: list[str], says: str) -> None:
    one = session(user="dk", password="s3cret")
    feed(one, *lines)
    assert one.state == "failed"
    assert says in one.problem
    assert "s3cret" not in one.problem


def test_a_server_that_knows_no_cap_is_logged_in_at_all_the_same() -> None:
    one = session()
    one.begin()
    assert feed(one, ":srv 421 * CAP :Unknown command")[0] == "NICK deploykit"
    silent = session()
    silent.begin()
    assert silent.without_cap()[0] == b"NICK deploykit\r\n"
    assert silent.without_cap() == ()


def test_a_nick_in_use_gets_a_tail_and_a_long_one_is_cut() -> None:
    one = session(nick="deploykit")
    feed(one, ":srv CAP * LS :x")
    assert feed(one, ":srv 433 * deploykit :in use") == ["NICK deployki_"]
    assert feed(one, ":srv 433 * deployki_ :in use") == ["NICK deployki2"]
    long = session(nick="deploykitofshop")
    feed(long, ":srv CAP * LS :x")
    assert feed(long, ":srv 432 * deploykitofshop :too long") == ["NICK deployki"]
    for _ in range(20):
        feed(long, ":srv 433 * x :in use")
    assert "are in use" in long.problem


def test_pings_are_answered_in_every_state() -> None:
    assert feed(session(), "PING :abc") == ["PONG :abc"]
    assert feed(joined(), "PING srv") == ["PONG :srv"]


def test_what_a_server_sends_back_makes_no_second_line() -> None:
    (answer,) = session().receive(b"PING :a\rQUIT :x\0y\n")
    assert answer == b"PONG :a QUIT :xy\r\n"


def test_a_refused_message_and_the_pong_behind_it() -> None:
    one = joined()
    assert one.message("hello: world") == b"PRIVMSG #ops :hello: world\r\n"
    feed(one, ":srv 404 deploykit #ops :Cannot send", ":srv PONG srv :dk-7")
    assert "may not write" in one.not_sent
    assert one.pong == "dk-7"
    one.message("next")
    assert one.not_sent == ""


def test_being_kicked_ends_the_session_and_others_being_kicked_does_not() -> None:
    one = joined()
    feed(one, ":op!o@h KICK #ops ann :bye")
    assert one.state == "joined"
    feed(one, ":op!o@h KICK #ops DeployKit :bye")
    assert one.problem == "it was kicked out of the channel by op"


def test_no_text_makes_a_second_line() -> None:
    for hostile in ("a\r\nQUIT", "a\nJOIN #x", "a\0b", "\x01VERSION\x01", "a\x0304b"):
        line = joined().message(hostile)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\r\n")
        assert not any(byte in line[:-2] for byte in b"\0\x01\x03\r\n")


def test_an_endless_line_ends_the_session_in_bounded_memory() -> None:
    one = joined()
    for _ in range(10):
        one.receive(b"x" * MOST_LINE)
    assert one.state == "failed"
    assert len(one._buffer) <= MOST_LINE


def test_lines_are_parsed() -> None:
    found = parse_irc(b"@time=x :nick!u@h PRIVMSG #ops :hello : world\r\n")
    assert found is not None
    assert (found.nick, found.command, found.params) == ("nick", "PRIVMSG", ("#ops", "hello : world"))
    assert parse_irc(b"") is None
    assert parse_irc(b":only.prefix") is None


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_bytes_of_a_server_break_a_session(pieces: list[bytes]) -> None:
    one = session(user="dk", password="s3cret")
    one.begin()
    for piece in pieces:
        for answer in one.receive(piece + b"\r\n"):
            assert answer.endswith(b"\r\n")
            assert answer.count(b"\n") == 1


@given(st.text(max_size=3000))
def test_parts_are_bounded_and_hold_the_beginning_of_the_text(text: str) -> None:
    parts = parts_of(text)
    assert len(parts) <= MOST_PARTS
    assert all(len(part.encode()) <= MOST_TEXT for part in parts)
    if len(text.encode("utf-8", "surrogatepass")) <= MOST_TEXT and text.strip():
        assert parts == (text.strip(),)


def test_a_long_text_is_cut_between_words_and_says_that_there_was_more() -> None:
    words = " ".join(["ünïcode"] * 300)
    parts = parts_of(words)
    assert len(parts) == MOST_PARTS
    assert all(part.startswith("ünïcode") for part in parts)
    assert parts[-1].endswith("…")
    assert not parts[0].endswith("…")


def test_no_part_of_a_long_text_begins_as_a_command() -> None:
    for text in ("é" * 199 + " !op mallory", "x" * 399 + " " + "/join #evil " + "y" * 300, "a" * 400 + "!op mallory"):
        parts = parts_of(text)
        assert len(parts) > 1
        assert all(part[0].isalnum() or part.startswith("- ") for part in parts), parts
        assert all(len(part.encode()) <= MOST_TEXT for part in parts)
