"""Refs of a mirror as directories: each whole, swapped at once, gone with its ref.

Checkouts(CheckoutSettings(mode="tags", target=Path("/srv/site"))).update(mirror)
"""

from deploykit.checkouts.directories import CheckoutChange, CheckoutResult, Checkouts, Source
from deploykit.checkouts.rules import CheckoutPlan, CheckoutRule, plan_checkouts, rule_of

__all__ = [
    "CheckoutChange",
    "CheckoutPlan",
    "CheckoutResult",
    "CheckoutRule",
    "Checkouts",
    "Source",
    "plan_checkouts",
    "rule_of",
]
