"""Settings of the original's other programs, by kind, as its formats are described; names and passwords are ours."""

from __future__ import annotations

from typing import Final

from tests.support.oldsettings import CONNECTOR, RSERVER

PLAIN_RSERVER: Final = RSERVER.splitlines()[0] + "\n"
#: Kind -> (file name, content).
SAMPLES: Final[dict[str, tuple[str, str]]] = {
    "stomp-access": (
        "stomp-access.yaml",
        f"""\
---
{CONNECTOR}
report-topic: future.events.stageaccess
listen-topic: future.access.stage
sites:
  example-site:
    file: /etc/nginx/includes/preview.access
    users: /etc/nginx/includes/preview.users
    type: nginx
  second-site:
    type: haproxy
    file: /etc/haproxy/second.access
    users: /etc/haproxy/second.users
""",
    ),
    "cillit-access": (
        "cillit-access.yaml",
        f"""\
---
{CONNECTOR}
report-topic: future.events.stageaccess
user-topic: future.access.stage
sites:
  Example site: example-site
  Second site (haproxy): second-site
""",
    ),
    "access-users": (
        "preview.users",
        "---\nalice: {expiry: 'Tue Mar  3 00:00:00 2026', password: '*0'}\nbob: {expiry: x, password: '*0'}\n",
    ),
    "gitagent-facts": (
        "facts.yaml",
        """\
country: uk
repo_shop: /data/repo/shop
sitedir_shop: /data/site/shop
controldir_shop: /data/repo/shop/future-control
sitetype_shop: live
repo_blog: /data/repo/blog
sitedir_blog: /data/site/blog
controldir_blog: /data/control/blog
sitetype_blog: stage
""",
    ),
    "git-agent": ("git-agent.yaml", f"---\n{RSERVER}report-topic: future.events.deploys\n"),
    "bloatagent": (
        "www.example.org.yaml",
        """\
---
site-root: /data/site
repo-root: /data/repo
deploy-root: /data/deploy
user-root: /data/user
repo-list:
  - name: shopfront
    target: www.example.org
    base_tag: r20
  - name: forms
    target: www.example.org/parts/forms
    base_tag: r7
controldir: /data/deploy/shopfront_r20/future-control
directorymap:
  - source: pictures
    target: content/uploads
  - source: films
    target: content/films
""",
    ),
    "mcollective": (
        "server.cfg",
        """\
main_collective = mcollective
collectives = mcollective,dc1
libdir = /usr/share/mcollective/plugins
logfile = /var/log/mcollective.log
loglevel = info
daemonize = 1
identity = web1.example.org
registerinterval = 300
securityprovider = psk
plugin.psk = shared-by-all
connector = activemq
plugin.activemq.pool.size = 2
plugin.activemq.pool.1.host = broker01
plugin.activemq.pool.1.port = 61613
plugin.activemq.pool.1.user = mcollective
plugin.activemq.pool.1.password = pool-password
plugin.activemq.pool.2.host = broker02
plugin.activemq.pool.2.port = 61613
plugin.activemq.pool.2.user = mcollective
plugin.activemq.pool.2.password = pool-password
plugin.activemq.randomize = true
plugin.activemq.heartbeat_interval = 30
plugin.activemq.max_reconnect_delay = 30
factsource = yaml
plugin.yaml = /etc/mcollective/facts.yaml
classesfile = /srv/puppet/classes.txt
rpcauthorization = 1
rpcauthprovider = action_policy
rpcaudit = 1
""",
    ),
    "grubby": (
        "sites.yaml",
        """\
---
First site:
  filter: identity_filter
  payload: '/web[12]|blog/'
  repo: shop
  tags: 10
  repo_type: git
Second site:
  filter: fact_filter
  payload: sitetype_blog=live
  repo: blog
  tags: 10
  repo_type: git
The old one:
  filter: class_filter
  payload: role::old
  repo: old
  tags: 5
  repo_type: svn
""",
    ),
    "grabby": (
        "stomp.conf",
        "MCOLLECTIVE_PSK= the-shared-key\nSTOMP_SERVER= broker01\nSTOMP_USER= deploy\nSTOMP_PASSWORD= deploypw\n",
    ),
    "stomp-repo": (
        "stomp-repo.yaml",
        f"---\n{CONNECTOR}\nlisten-topic: future.package.updates\nreport-topic: future.events.repository\n"
        "packages: [nginx, libfoo1]\n",
    ),
    "auto-reprepro": (
        "auto-reprepro.yaml",
        f"---\n{RSERVER}report-topic: future.events.repository\npackage-topic: future.package.updates\n"
        "incoming-dir: '/srv/incoming/'\ndistro-list:\n  - squeeze\n  - wheezy\n",
    ),
    "repository-hook": (
        "stomp-postrec.yaml",
        f"---\n{RSERVER}trigger-topic: future.git.commits\nreport-topic: future.events.gitolite\n",
    ),
    "jenkins-helper": ("jenkins-helper.yaml", f"---\n{PLAIN_RSERVER}"),
    "gitlab-stomp": (
        "gitlab-stomp.yaml",
        f"---\n{CONNECTOR}\ntrigger-topic: future.git.commits\nreport-topic: future.events.gitlab\n",
    ),
    "github-stomp": (
        "github-stomp.yaml",
        f"---\n{PLAIN_RSERVER}trigger-topic: future.git.commits\nreport-topic: future.events.stomp-git\n",
    ),
    "puppet-module": (
        "common.yaml",
        """\
---
gitconfigure:
  one:
    site: www.example.org
    repo: shopfront
    origin: 'git@git.example.org:shopfront'
    base_tag: r20
    target: 'www.example.org'
  two:
    site: www.example.org
    repo: forms
    origin: 'git@git.example.org:forms'
    base_tag: r7
    target: 'www.example.org/parts/forms'
ntp::servers: [ntp1]
""",
    ),
}

__all__ = ["PLAIN_RSERVER", "SAMPLES"]
