"""The settings that the original's programs came with, as its formats are described, and a draft made of them."""

from __future__ import annotations

from pathlib import Path

from deploykit.config import parse_settings
from deploykit.config.migrate.convert import convert
from deploykit.config.migrate.model import MigrationDraft, OldFile
from deploykit.config.migrate.oldfiles import parse_old_file
from deploykit.config.migrate.render import render
from deploykit.settings import Settings

CONNECTOR = """\
stompconnector:
  :reliable: true
  :hosts:
    - :login: gituser
      :passcode: gitpw
      :host: broker01
      :port: 61613
      :ssl: false
    - :login: gituser
      :passcode: gitpw
      :host: broker02
      :port: 61613
      :ssl: false
  :connect_headers:
    :accept-version: "1.1"
    :host: /
    :heart-beat: "10000,10000"
"""
OPTIONS = (
    "stomp-options: initialReconnectDelay=0.01&randomize=false&useExponentialBackOff=true&MaxReconnectDelay=30"
    "&BackOffMultiplier=2&MaxReconnectAttempts=0&Backup=false&Timeout=-1\n"
)
RSERVER = f"rserver: failover://(stomp://gituser:gitpw@broker01:61613,stomp://gituser:gitpw@broker02:61613)\n{OPTIONS}"
STOMP_GIT = f"""\
---
{CONNECTOR}
log-file: /var/log/stomp-git.log
fluent-name: stomp-git
listen-topic: future.git.commits
report-topic: future.events.stompgit
repo-list:
  plain: {{user: www-data, repo: /data/repo/plain, mode: normal}}
  live: {{user: www-data, repo: /data/repo/live, mode: trusting, target: /data/live}}
  one: {{user: www-data, repo: /data/repo/one, mode: branch, branch: release, target: /data/one}}
  puppet: {{user: puppet, repo: /data/repo/puppet, mode: puppetmaster, target: /etc/puppet/environments}}
  heads: {{user: www-data, repo: /data/repo/heads, mode: atomic, target: /data/heads}}
  shop: {{user: www-data, repo: /data/repo/shop, mode: tags, target: /data/deploy/shop}}
  old: {{user: www-data, repo: /data/repo/old, mode: dangerous}}
"""


def old_file(text: str | bytes, name: str = "old.yaml") -> OldFile:
    """An old file with this content."""
    return parse_old_file(text.encode() if isinstance(text, str) else text, Path(name))


def drafted(*texts: str, kind: str = "") -> MigrationDraft:
    """What old files with these contents become."""
    return convert([old_file(text, f"old{n}.yaml") for n, text in enumerate(texts)], kind=kind)


def lost_keys(draft: MigrationDraft) -> dict[str, str]:
    """The keys that were not carried over, and why."""
    return {lost.key: lost.why for lost in draft.lost}


def accepted(draft: MigrationDraft, directory: Path) -> Settings:
    """The settings that a draft is, read as every daemon reads them; its secrets are in a directory.

    Raises:
        SettingsError: they are not accepted.
    """
    for place, secret in draft.secrets.items():
        file = directory / str(draft.values[place])
        file.write_text(secret)
        file.chmod(0o600)
    return parse_settings(render(draft, directory=directory).encode(), mode=0o600)


__all__ = ["CONNECTOR", "OPTIONS", "RSERVER", "STOMP_GIT", "accepted", "drafted", "lost_keys", "old_file"]
