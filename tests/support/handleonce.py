"""Hand one deploy command to a node's agent, as its bus would, and end: a program to be killed anywhere.

    python -m tests.support.handleonce SETTINGS FRAME

FRAME is a JSON file with `headers` and `body`. What the agent does before and after it is done here too: finish what a
crash cut off, then handle the delivery. No broker: an unacknowledged command comes again, which is to run this again.
No fetching either: the mirrors are as they are.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from deploykit.audit import open_audit
from deploykit.builds.store import builds_of
from deploykit.bus import Delivery
from deploykit.config import load_settings
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.relay import open_outbox
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.errors import DeploykitError
from deploykit.ids import IdStore
from deploykit.messages import utc_now
from deploykit.release import Runner, Site
from deploykit.testing.fakes import FakeBus
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_signing_key
from tests.support.resultaudit import result_audit


def main() -> None:
    """Recover, handle, and print the verdict."""
    settings = load_settings(Path(sys.argv[1]))
    told = json.loads(Path(sys.argv[2]).read_text())
    settings.state.mkdir(parents=True, exist_ok=True)
    assert settings.signing_key is not None
    reporter = Reporter(open_outbox(settings.outbox), settings.topics, load_signing_key(settings.signing_key))
    ids = IdStore(settings.state / "ids.sqlite")
    trust = Trust.from_settings(settings.trust, settings.node)
    builds, audit = builds_of(settings.state), open_audit(settings)
    gate = BuildGate(settings, trust, builds, result_audit(audit, builds, settings.node))
    progress = ProgressSender(settings.node, FakeBus(), settings.topics, None)
    deployer = SiteDeployer(settings, MirrorHandler(settings, reporter), gate, progress)
    rollouts, writer = rollouts_of(settings.state), AuditWriter(audit, f"agent/{settings.node}", utc_now)
    deploys = DeployHandler(
        *(settings.node, deployer, reporter, ids, trust, audit),
        rollouts=rollouts,
        sites=settings.sites,
        mandates=mandates_of(settings, trust, reporter, writer, rollouts),
    )
    for site in settings.sites.values():
        try:
            Runner(Site(site.path, site.release), node=settings.node).recover()
        except DeploykitError as error:
            print(error, file=sys.stderr)
    delivery = Delivery(
        destination=settings.topics.deploy,
        headers=told["headers"],
        body=base64.b64decode(told["body"]),
        message_id="1",
        id="",
        attempt=1,
        redelivered=False,
        epoch=1,
    )
    print(type(deploys.handle(delivery)).__name__)
    ids.close()


if __name__ == "__main__":
    main()
