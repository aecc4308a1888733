"""The part of a proposal's page where a passkey signs: the script comes with all the elements that it needs, or not."""

from __future__ import annotations

import re
from typing import Literal

import attrs
import pytest

from deploykit.web.actions.shown import ProposalShown
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.signing.offers import SigningOffer
from deploykit.web.viewer import Viewer
from tests.support.actingworld import ADA, WAITING, busy_actions, busy_world
from tests.support.served import answer_of as get
from tests.support.served import console_app

#: What signpage.mjs takes for granted, by mode.
NEEDED = {"here": {"said", "status", "press", "form"}, "elsewhere": {"link", "status", "press", "form"}}
OFFER = SigningOffer(mode="here", rollout=WAITING, mandate="e30=", keys="a.b", rp_id="localhost")


class GivenDesk(SigningDesk):
    """A desk that makes the offer it is given."""

    def __init__(self, offer: SigningOffer) -> None:
        """Open nothing."""
        self._offer = offer

    def offer(self, viewer: Viewer, proposal: ProposalShown, address: str) -> SigningOffer:
        """Return the offer."""
        return self._offer


@pytest.mark.parametrize("mode", ["here", "elsewhere"])
@pytest.mark.parametrize("enrolled", [True, False])
@pytest.mark.parametrize("problem", ["", "the page needs https"])
def test_the_script_is_there_where_a_key_can_sign_and_nowhere_else(
    mode: Literal["here", "elsewhere"], *, enrolled: bool, problem: str
) -> None:
    app = console_app(busy_world(), viewer=ADA, actions=busy_actions().console)
    offer = attrs.evolve(OFFER, mode=mode, enrolled=enrolled, keys="a.b" if enrolled else "", problem=problem)
    app.state.console = attrs.evolve(app.state.console, signing=GivenDesk(offer))
    page = get(app, f"/deploys/{WAITING}/approve").text
    signs = enrolled and not problem
    assert ("/signpage" in page, "data-sign=" in page) == (signs, signs)
    assert (set(re.findall(r'data-part="([a-z]+)"', page)) >= NEEDED[mode]) is signs
    assert ("Enrol one" in page) is (not enrolled and not problem)
