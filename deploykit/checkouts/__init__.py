"""Refs of a mirror as directories: each whole, swapped at once, gone with its ref.

Checkouts(CheckoutSettings(mode="tags", target=Path("/srv/site"))).update(mirror)
"""

from deploykit.checkouts.directories import Checkouts
from deploykit.checkouts.model import CheckoutChange, CheckoutResult, CheckoutSource
from deploykit.checkouts.rules import CheckoutPlan, CheckoutRule, plan_checkouts, rule_of

__all__ = [
    "CheckoutChange",
    "CheckoutPlan",
    "CheckoutResult",
    "CheckoutRule",
    "CheckoutSource",
    "Checkouts",
    "plan_checkouts",
    "rule_of",
]
