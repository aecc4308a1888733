"""What the page of a proposal needs for a passkey to sign it. Pure.

Rules:

* The page gets the mandate's bytes, and decodes them itself. Nothing that is shown beside them reaches the signature.
* Between two origins they travel in the fragment of a link, which browsers send to no server.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol
from urllib.parse import urlencode

import attrs

from deploykit.web.signing.enrolment import blob_of_line
from deploykit.web.signing.places import SigningPlace

#: Characters of the longest link: browsers take more than a million.
MOST_LINK: Final = 1_000_000
#: Keys of one person that are offered.
_MOST_KEYS: Final = 20


class EnrolledKey(Protocol):
    """A passkey that signs, as the ledger has it: the id of its credential, its relying party, and its line."""

    @property
    def credential(self) -> str:
        """The credential's id, in base64url."""

    @property
    def rp_id(self) -> str:
        """The relying party."""

    @property
    def line(self) -> str:
        """The line for `allowed_signers`."""


@attrs.frozen(kw_only=True, slots=True)
class SigningOffer:
    """What the template `passkeysign.html` shows.

    Args:
        mode: `here`: this page asks for the passkey; `elsewhere`: it links to the page that does.
        rollout: which it is about.
        mandate: the bytes, in base64.
        keys: the viewer's passkeys that sign there, as the script reads them.
        rp_id: their relying party.
        link: to the other page; empty for none.
        problem: why no passkey can sign; empty where one can.
        enrolled: the viewer has a passkey that signs there.
    """

    mode: Literal["here", "elsewhere"]
    rollout: str
    mandate: str
    keys: str
    rp_id: str
    link: str = ""
    problem: str = ""
    enrolled: bool = True


def signing_offer(place: SigningPlace, rollout: str, body: str, keys: Iterable[EnrolledKey]) -> SigningOffer:
    """Return what the page of a proposal needs.

    Args:
        place: where people sign.
        rollout: which it is about.
        body: the mandate's bytes, in base64.
        keys: the viewer's passkeys that sign.
    """
    words = key_words([key for key in keys if key.rp_id == place.rp_id])
    offer = SigningOffer(
        mode="elsewhere" if place.elsewhere else "here",
        rollout=rollout,
        mandate=body,
        keys=words,
        rp_id=place.rp_id,
        problem=place.problem,
        enrolled=bool(words),
    )
    if not place.elsewhere or not words:
        return offer
    link = f"{place.origin}/#{urlencode({'mandate': url_base64(body), 'keys': words})}"
    if len(link) > MOST_LINK:
        problem = "it is too long for a browser's address: sign it by the command line"
        return attrs.evolve(offer, problem=problem)
    return attrs.evolve(offer, link=link)


def key_words(keys: Sequence[EnrolledKey]) -> str:
    """Return keys as the script reads them: `ID.KEY,ID.KEY`, each in base64url. Without those that are none."""
    found = []
    for key in keys[-_MOST_KEYS:]:
        blob = blob_of_line(key.line)
        try:
            credential = base64.urlsafe_b64decode(key.credential + "==")
        except ValueError:
            credential = b""
        if not blob or not credential:
            continue  # a damaged entry must not keep the others from signing
        found.append(".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (credential, blob)))
    return ",".join(found)


def url_base64(text: str) -> str:
    """Return base64 in the alphabet of addresses, without padding.

    >>> url_base64("+/8=")
    '-_8'
    """
    return text.replace("+", "-").replace("/", "_").rstrip("=")


__all__ = ["MOST_LINK", "EnrolledKey", "SigningOffer", "key_words", "signing_offer", "url_base64"]
