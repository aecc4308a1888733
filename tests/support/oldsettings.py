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

STOMP_JENKINS = f"""\
---
{RSERVER}listen-topic: future.git.commits
report-topic: future.events.jenkins
jenkins-url: http://jenkins.example.org:8080
jenkins-projects:
  single:
    project: shop-tests
    ticket: SINGLE-KEY
    ignore_refs: refs\\/tags\\/jenkins-(?:.*)
  several:
    basket:
      project: team/basket
      ticket: BASKET-KEY
    search:
      project: name%20with%20blanks
      ticket: SEARCH-KEY
      ignore_refs: ""
"""
KEEPALIVE = f"""\
---
stompserver1: broker01
stompserver2: broker02
stompport1: 61613
stompport2: 61613
{OPTIONS}topics:
  future.git.commits:
    user: gitbot
    pass: gitbot-pw
    type: topic
  future.other.queue:
    user: queue-user
    pass: "queue-user's p/w"
    type: queue
"""
R10K = """\
---
:cachedir: /var/cache/r10k
:sources:
  :main:
    remote: https://robot:token@git.example.org/control.git
    basedir: /etc/puppetlabs/code/environments
  :qa:
    remote: git@git.example.org:qa.git
    basedir: /etc/puppetlabs/code/environments
    prefix: true
    ignore_branch_prefixes: [test, dev]
    invalid_branches: correct_and_warn
  :hiera:
    remote: git@git.example.org:hiera.git
    basedir: /etc/puppetlabs/code/hieradata
    prefix: app
pool_size: 4
postrun: [/usr/bin/curl, http://my-app.example.org]
git:
  provider: rugged
  private_key: /etc/puppetlabs/r10k/id_rsa
  repositories:
    - remote: git@git.example.org:qa.git
      private_key: /etc/puppetlabs/r10k/id_qa
deploy:
  purge_levels: [deployment, environment]
  write_lock: "not before Monday"
forge:
  baseurl: https://forge.example.org
"""
G10K = """\
---
:cachedir: /tmp/g10k
maxworker: 10
timeout: 30
use_cache_fallback: true
purge_levels: [deployment]
sources:
  example:
    remote: https://git.example.org/control.git
    basedir: /etc/puppetlabs/code/environments
    private_key: /etc/g10k/id_rsa
    prefix: false
    force_forge_versions: true
    filter_regex: "^(production|dev_.*)$"
"""
#: Each sample with the name of its kind.
SAMPLES = {
    "stomp-git": STOMP_GIT,
    "stomp-jenkins": STOMP_JENKINS,
    "keepalive": KEEPALIVE,
    "r10k": R10K,
    "g10k": G10K,
}


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


__all__ = [
    "CONNECTOR",
    "G10K",
    "KEEPALIVE",
    "R10K",
    "SAMPLES",
    "STOMP_JENKINS",
    "OPTIONS",
    "RSERVER",
    "STOMP_GIT",
    "accepted",
    "drafted",
    "lost_keys",
    "old_file",
]
