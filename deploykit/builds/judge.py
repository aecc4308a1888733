"""Does a signed build result count at this moment? The trusted keys and grants of now decide, whatever was stored.

Rules:

* A result is verified when it comes, and again from its stored bytes whenever a gate is asked: a key may have been
  revoked since, a grant removed, a file edited.
* A result from the future is kept, up to a day ahead, and counts when its time has come: a clock that is wrong must not
  lose it.
* What is wrong is one short text that may be shown to anybody: it quotes neither paths nor principals.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import attrs

from deploykit.builds.result import SignedResult
from deploykit.errors import KeyNotTrusted, PolicyRefused, SignatureError, SignatureNotEnough
from deploykit.messages import BuildFinished
from deploykit.names import SiteName
from deploykit.trust.check import Trust

_AHEAD: Final = timedelta(days=1)


@attrs.frozen(kw_only=True, slots=True)
class KnownResult:
    """A build result, and why it does not count; `objection` is empty where it counts.

    Args:
        result: what the body says; verified where there is no objection.
        objection: completes "number 41 succeeded, but …".
        signer: the key's fingerprint; empty where the signature is not good.
    """

    result: BuildFinished
    objection: str = ""
    signer: str = ""


def judge(
    signed: SignedResult,
    trust: Trust,
    now: datetime,
    *,
    remember: timedelta,
    site: SiteName | None = None,
    again: bool = False,
) -> KnownResult:
    """Return a result with what keeps it from counting, if anything.

    Args:
        signed: the exact bytes.
        trust: keys and grants as they are now.
        now: aware.
        remember: the age up to which results count.
        site: the site that it is to count for; None for any.
        again: it was verified before.

    Raises:
        MessageError: the body is no build result.
        KeyFileError: the trusted files cannot be read now. Try again later.
    """
    signer = ""
    try:
        verified = trust.check(signed.frame, now)
        signer = verified.key
        return KnownResult(result=verified.build(now, remember=remember, site=site), signer=signer)
    except KeyNotTrusted:
        objection = "its key is no longer trusted" if again else "its key is not trusted"
    except SignatureNotEnough:
        objection = "its signature does not show a person, or the web page, that this node asks for"
    except SignatureError:
        objection = "its signature does not fit: it was changed"
    except PolicyRefused as error:
        objection = error.problem
    return KnownResult(result=signed.unverified(), objection=objection, signer=signer)


def judge_to_keep(signed: SignedResult, trust: Trust, now: datetime, *, remember: timedelta) -> KnownResult:
    """Return a result that has just come, with what keeps it from ever counting; arguments and errors as of `judge`."""
    claimed = signed.unverified().time
    return judge(signed, trust, max(now, claimed) if claimed - now <= _AHEAD else now, remember=remember)
