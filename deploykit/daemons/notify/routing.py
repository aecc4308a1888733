"""Which items go to which channel. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from deploykit.daemons.notify.news import NewsItem
from deploykit.settings.notify import ChannelSettings


def goes_to(item: NewsItem, channel: ChannelSettings) -> bool:
    """Return whether a channel wants an item: one of its kinds, and its site or no site."""
    if not any(kind in channel.events for kind in item.kinds):
        return False
    return not item.site or any(fnmatchcase(item.site, pattern) for pattern in channel.sites)


__all__ = ["goes_to"]
