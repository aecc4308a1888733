"""The mail of a letter: no text of somebody else's becomes a header, and a mark is never cut off."""

from __future__ import annotations

from email import message_from_bytes

import pytest

from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.mail import mail_of
from deploykit.daemons.notify.waiting import NotifyBatch
from deploykit.fleet.tracetrust import Standing
from deploykit.settings.notify import ChannelSettings
from tests.support.newsworld import NOW, item, notice

SETTINGS = ChannelSettings(kind="email", url="smtp://127.0.0.1", sender="dk@example.org", to=("ops@example.org",))
HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
}


def mail(text: str, standing: Standing = "unsigned") -> bytes:
    line = waiting_line(item(notice(text), standing), SETTINGS, added=0.0)
    assert line is not None
    return mail_of(letter_of(NotifyBatch(id="1", lines=(line,)), "email", NOW), SETTINGS, host="hub").as_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "=?utf-8?q?a=0D=0ABcc:_evil=40example.net?=",
        "=?utf-8?b?DQpCY2M6IGV2aWxAZXhhbXBsZS5uZXQNCg0Kbm8gYm9keQ==?=",
        "x =?=?utf-8?q?=0D=0ABcc:_a?= =?us-ascii?Q?=0ABcc:_b?=",
        "a\r\nBcc: evil@example.net\r\n\r\nbody",
    ],
)
def test_an_encoded_word_adds_no_header(text: str) -> None:
    read = message_from_bytes(mail(text))
    assert set(read.keys()) == HEADERS
    assert len(read.keys()) == len(HEADERS)


@pytest.mark.parametrize("standing", ["unsigned", "not verified"])
def test_the_subject_of_an_unsigned_message_says_so_however_long_it_is(standing: Standing) -> None:
    for length in (10, 130, 138, 140, 150, 290):
        line = waiting_line(item(notice("x" * length), standing), SETTINGS, added=0.0)
        assert line is not None
        subject = letter_of(NotifyBatch(id="1", lines=(line,)), "email", NOW).subject
        assert subject.endswith(f" ({standing})")
        assert len(subject) <= 165
