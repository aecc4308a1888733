"""The channels of the settings, by their kind."""

from __future__ import annotations

import threading

from deploykit.daemons.notify.irc import IrcChannel
from deploykit.daemons.notify.mail import MailChannel
from deploykit.daemons.notify.ports import NotifyChannel
from deploykit.daemons.notify.posting import CdeventsChannel, MatrixChannel, SlackChannel, WebhookChannel
from deploykit.settings.notify import ChannelSettings


def make_channel(name: str, settings: ChannelSettings, *, node: str, ending: threading.Event) -> NotifyChannel:
    """Return the channel of some settings, not connected.

    Args:
        node: of this machine.
        ending: set once the service ends.

    Raises:
        SettingsError: a file that the settings name cannot be used, or does not hold what it should.
    """
    match settings.kind:
        case "irc":
            return IrcChannel(name, settings, ending=ending)
        case "matrix":
            return MatrixChannel(name, settings)
        case "slack":
            return SlackChannel(name, settings)
        case "webhook":
            return WebhookChannel(name, settings)
        case "cdevents":
            return CdeventsChannel(name, settings)
        case "email":
            return MailChannel(name, settings, host=node)


__all__ = ["make_channel"]
