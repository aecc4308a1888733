"""How an item reads: a template filled in, and made harmless for where it goes. Pure.

Every value was written by somebody else. Rules:

* A line is one line without control or invisible characters. Only the template's own text is not cut.
* Nothing in a value calls people: `@channel`, `@here` and the like are taken apart by a zero-width space.
* Nothing in a value is markup: Slack's `<…>` is escaped, the link of Markdown is taken apart, Matrix gets no HTML.
* No line begins as a command of a bot or a server does.
* A message without a signature says so, unless the template names `{standing}` itself.
"""

from __future__ import annotations

import re
from datetime import timedelta
from string import Formatter
from typing import Final

from deploykit.daemons.notify.news import NewsItem
from deploykit.messages import one_line
from deploykit.settings.notify import ChannelKind

#: A line of a message that is older than this when it is heard says of when it is.
LATE: Final = timedelta(minutes=10)
#: Characters of the longest line, without its marks and its link; and of the longest link that is added.
LONGEST: Final = 600
#: Bytes of the longest line in IRC, likewise: what stands behind it is never left out.
_LONGEST_IN_IRC: Final = 800
#: What stands behind the line of a message that nobody signed, or whose signature nobody can judge.
STANDING_MARKS: Final = (" (unsigned)", " (not verified)")
_LONGEST_LINK: Final = 300
#: Takes a word apart that would call people; the only invisible character in a line.
ZERO_WIDTH_SPACE: Final = "\u200b"
#: Addresses of people (`ann@laptop`) stay as they are, but for words that call everybody wherever they stand.
_MENTION: Final = re.compile(r"(?<![\w.+-])@(?=[\w&!])|@(?=(?:channel|here|everyone|all|room|group)\b)", re.IGNORECASE)
_MARKDOWN_LINK: Final = re.compile(r"\](?=[(\[])")
_PLAIN_BEGINNING: Final = re.compile(r"[\w\[(\"'„“]")


def text_of(item: NewsItem, template: str, kind: ChannelKind) -> str:
    """Return the line of an item for a channel of a kind.

    Args:
        template: checked by the settings; empty: the line as it comes, and its link.
    """
    names = {name for _, name, _, _ in Formatter().parse(template) if name}
    text = fill(template or "{line}", item, kind)
    text = guarded(_cut(text, kind))
    if "standing" not in names and not item.verified:
        text += f" ({item.fields['standing']})"
    if "time" not in names and is_late(item):
        text += f" (of {item.fields['time']})"
    link = item.fields["link"]
    return f"{text} {escape_markup(link, kind)}" if link and not template and len(link) <= _LONGEST_LINK else text


def is_late(item: NewsItem) -> bool:
    """Return whether an item says of when it is: it was held up, or somebody sent it again."""
    return abs(item.received - item.message.time) > LATE


def _cut(text: str, kind: ChannelKind) -> str:
    if kind == "irc" and len(text.encode()) > _LONGEST_IN_IRC:
        text = text.encode()[:_LONGEST_IN_IRC].decode("utf-8", "ignore") + "…"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def fill(template: str, item: NewsItem, kind: ChannelKind) -> str:
    """Return a template with the values of an item, each made harmless for a kind of channel."""
    made = []
    for text, name, _, _ in Formatter().parse(template):
        made.append(escape_markup(text, kind))
        if name:
            value = item.fields[name]
            made.append(escape_markup(value, kind) if name == "link" else harmless(value, kind))
    return "".join(made)


def harmless(value: str, kind: ChannelKind) -> str:
    """Return a value that calls nobody and is no markup in a channel of a kind.

    >>> harmless("<!channel> look", "slack")
    '&lt;!channel&gt; look'
    >>> harmless("@here", "irc") == "@here"
    False
    """
    value = one_line(value, LONGEST)
    if kind in ("webhook", "cdevents", "email"):
        return value
    value = _MENTION.sub(f"@{ZERO_WIDTH_SPACE}", value)
    if kind == "slack":
        value = _MARKDOWN_LINK.sub(f"]{ZERO_WIDTH_SPACE}", value)
    return escape_markup(value, kind)


def escape_markup(text: str, kind: ChannelKind) -> str:
    """Return a text whose three characters of Slack's markup are escaped, where it goes there."""
    if kind != "slack":
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def guarded(line: str) -> str:
    """Return a line that no bot and no server takes for a command: it begins with a letter, a digit or a bracket.

    >>> guarded("!op mallory"), guarded("web1 has failed")
    ('- !op mallory', 'web1 has failed')
    """
    return line if _PLAIN_BEGINNING.match(line) else f"- {line}"


__all__ = [
    "LATE",
    "LONGEST",
    "STANDING_MARKS",
    "ZERO_WIDTH_SPACE",
    "escape_markup",
    "fill",
    "guarded",
    "harmless",
    "is_late",
    "text_of",
]
