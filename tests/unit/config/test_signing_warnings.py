"""A page on which people sign, and the nodes' list of pages that count: what does not go together is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.config.crosschecks import warnings
from deploykit.names import NodeName
from deploykit.settings.node import Settings
from deploykit.settings.trust import TrustSettings
from deploykit.settings.web import WebSettings

SIGN, OWN = "https://sign.example.org", "https://deploy.example.org"


def found(origins: tuple[str, ...], rp_ids: tuple[str, ...], *, signers: str = "/x", sign: str = SIGN) -> str:
    trust = TrustSettings(allowed_signers=Path(signers) if signers else None, origins=origins, rp_ids=rp_ids)
    web = WebSettings(url=OWN, sign_origin=sign)
    return "\n".join(warnings(Settings(node=NodeName("ops-1"), web=web, trust=trust)))


@pytest.mark.parametrize(("origins", "rp_ids"), [((), ()), ((SIGN,), ()), ((), ("sign.example.org",))])
def test_a_page_whose_signatures_do_not_count_is_named(origins: tuple[str, ...], rp_ids: tuple[str, ...]) -> None:
    assert f"add '{SIGN}', and 'sign.example.org' to trust.rp_ids" in found(origins, rp_ids)


def test_the_consoles_own_page_beside_it_is_named() -> None:
    text = found((SIGN, OWN), ("sign.example.org",))
    assert text.startswith(f"trust.origins: '{OWN}' counts beside web.sign_origin")


def test_what_goes_together_is_not_named() -> None:
    assert found((SIGN,), ("sign.example.org",)) == ""
    assert found((OWN,), ("deploy.example.org",), sign="") == ""
    assert found((), (), signers="") == ""
