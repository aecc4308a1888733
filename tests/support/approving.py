"""A desk where rollouts are proposed, and the people who approve them: keys, grants, a settings file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.config import load_settings
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.plan import Plan, RolloutOptions, Target, make_plan
from deploykit.messages import utc_now
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.operations.deploy import load_report_trust, signing_key
from deploykit.operations.proposals import Proposal
from deploykit.operations.propose import mandate_for, propose
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.settings import Settings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import SigningKey

NEW: Final = Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20))
#: Principals with a key file of that name each; `eve` is trusted and may approve nothing.
PEOPLE: Final = ("ann", "bob", "eve", "desk")


class ApprovalWorld:
    """Key files `ann`, `bob`, `eve`, `desk` (coordinates) and `mallory` (a stranger) below a directory, and settings.

    Args:
        root: an empty directory.
        site: further lines for `[sites.shop]`; None where the desk does not know the site.
    """

    def __init__(self, root: Path, *, site: str | None = "signatures = 2") -> None:
        self.root = root
        self.signers = root / "allowed_signers"
        self.keys: dict[str, SigningKey] = {name: generate_key(root / name) for name in (*PEOPLE, "mallory")}
        for name in PEOPLE:
            trust(self.signers, name, self.keys[name].public_blob)
        known = f'[sites.shop]\npath = "{root}/site"\nrepo = "shop"\n{site}\n' if site is not None else ""
        self.config = root / "deploykit.toml"
        self.config.touch(0o600)
        self.config.write_text(
            f'node = "desk"\nstate = "{root}/state"\nsigning_key = "{root}/desk"\n'
            f'[trust]\nallowed_signers = "{self.signers}"\n'
            "grants = [\n"
            '  { principal = "desk", types = ["rollout.run"] },\n'
            '  { principal = "ann", types = ["rollout.approved"] },\n'
            '  { principal = "bob", types = ["rollout.approved"] },\n'
            "]\n"
            f'[repositories.shop]\nurl = "{root}/git"\n{known}'
        )
        self.settings: Settings = load_settings(self.config)

    def planned(self, nodes: int = 3, *, plan: Plan | None = None, **changes: Any) -> PlannedRollout:
        """Return a rollout of `NEW`."""
        made = plan or make_plan(
            site=SiteName("shop"),
            nodes=[NodeName(f"web{number}") for number in range(1, nodes + 1)],
            target=NEW,
            options=RolloutOptions(),
            rollout="shop-1",
            requested_by="ada",
        )
        return PlannedRollout(
            settings=self.settings,
            plan=made,
            key=signing_key(self.settings, None),
            trust=load_report_trust(self.settings),
            **changes,
        )

    def mandate(self, **times: Any) -> HeldMandate:
        """Return a mandate that nobody has signed."""
        return mandate_for(self.planned(), utc_now(), **times)

    def proposed(self, planned: PlannedRollout | None = None, **times: Any) -> Proposal:
        """Return a proposal that nobody has signed."""
        chosen = planned or self.planned()
        return propose(chosen, mandate_for(chosen, utc_now(), **times))

    def over(self) -> Proposal:
        """Return a proposal whose mandate has ended."""
        planned = self.planned()
        mandate = mandate_for(planned, utc_now() - timedelta(days=2))
        return propose(attrs.evolve(planned), mandate)
