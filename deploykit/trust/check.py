"""The one call that judges a signed message: who signed it, and what follows from that.

    frame                    -> `Trust.check`        signature, message, audience -> `Verified`
    `Verified` at an instant -> `Verified.authorize` grant and times              -> `Authorized`
    `Verified` as a reply    -> `Verified.believe`   node, request, outcome
    `Verified` as a result   -> `Verified.build`     grant, repository, job, age

Rules:

* An unsigned frame costs nothing: no file is read. A body is decoded only after its signature proved good.
* The message is decoded here, from the very bytes that were verified.
* While the trusted files cannot be read, nothing is decided: `KeyFileError`. The message waits for another attempt.
* Ids come later: a message that is refused never claims one, so nobody can spend the id of a genuine request.
* A caller that resumes a request passes the instant of its first claim. The request was in time when it first came.

The steps are two because the first tells whose id a message has, and only then the caller can look up when it was
claimed. What `check` returns holds all that the second step needs: it reads no file, no clock and no network.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

import attrs

from deploykit.errors import KeyFileError, NotAddressed, PolicyRefused, SignatureError, UsageError
from deploykit.messages import BuildFinished, DeployReported, DeployRequested, Message, NodeDescribed
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.policy import Policy, Request, addressed_to
from deploykit.trust.rights import NO_REPOS
from deploykit.trust.signature import HEADER, Signer, Signers, body_digest, copy_digest, verify, verify_blob
from deploykit.trust.trustreader import TrustReader
from deploykit.wire import Frame, decode


@attrs.frozen(kw_only=True, slots=True)
class Authorized:
    """What a signer may do with one message.

    Args:
        grant: the grant that allows it.
        keep_until: how long its id must be remembered, so that no replay passes: for `ids.IdStore.claim`.
        mandate: the mandate that the message names: it may be acted on only inside that, whatever its site asks for.
            None where it names none, and for a discard.
    """

    grant: GrantSettings
    keep_until: datetime
    mandate: str | None = None


@attrs.frozen(kw_only=True, slots=True)
class Verified:
    """A message for this node with a good signature. Made by `Trust.check`; its methods are pure.

    Args:
        message: decoded from the verified body; None for a keepalive.
        signer: the keys, and their principals.
        frame: as it was received.
        node: who we are.
        policy: decides what the signer may do.
    """

    message: Message | None
    signer: Signers
    frame: Frame = attrs.field(repr=False)
    node: NodeName
    policy: Policy = attrs.field(repr=False)

    @property
    def key(self) -> str:
        """The fingerprints of the keys, joined by commas: a name for logs. Ids are claimed for `keys`."""
        return self.signer.fingerprint

    @property
    def keys(self) -> tuple[str, ...]:
        """For whom its id is claimed: each key that signed, and the body where several did.

        A copy with one signature less, or with one more, is then known for the same message.
        """
        each = tuple(signer.fingerprint for signer in self.signer.each)
        return each if len(each) == 1 else (*each, f"body:{self.digest.hex()}")

    @property
    def digest(self) -> bytes:
        """The body's name: an id that comes again with another digest is another message."""
        return body_digest(self.frame.body)

    @property
    def copy(self) -> str:
        """The name of what was signed by whom, for `answers` of `DeployReported` and `NodeDescribed`."""
        return copy_digest(self.frame)

    def authorize(self, now: datetime, *, claimed_at: datetime | None = None) -> Authorized:
        """Return by which grant the signer may have this message acted on.

        Args:
            now: aware.
            claimed_at: when the message's id was first claimed, if ever. The times are judged by that instant.

        Raises:
            PolicyRefused: no grant allows it, or it is too late, too early, or expires too far ahead.
        """
        if self.message is None:
            raise PolicyRefused("a keepalive asks for nothing")
        grant = self.policy.authorize(self.message, self.signer, self.node, claimed_at or now)
        return Authorized(
            grant=grant, keep_until=self.policy.replayable_until(self.message, now), mandate=_mandate_of(self.message)
        )

    def build(self, now: datetime, *, remember: timedelta, site: SiteName | None = None) -> BuildFinished:
        """Return the build result that this message is, if it counts.

        Args:
            now: aware.
            remember: the age up to which results count.
            site: the site that it is to count for; None for any.

        Raises:
            PolicyRefused: no build result, or one that does not count. The text may be shown to anybody.
        """
        if not isinstance(self.message, BuildFinished):
            raise PolicyRefused("it is no build result")
        self.policy.authorize_build(self.message, self.signer, now=now, remember=remember, site=site)
        return self.message

    def believe(self, request: Request, now: datetime, *, copy: str | None = None, as_sent: str | None = None) -> None:
        """Accept this message as a node's reply to our request.

        Args:
            request: what was asked.
            now: aware.
            copy: names the signed request (`copy_digest`). A reply that answers another is refused.
            as_sent: names its frame as it went out (`frame_digest`), for a node that could not verify it can name it
                only so. It counts for refusals.

        Raises:
            PolicyRefused: no reply; to another request or copy; of a node that was not asked; signed by a key that may
                not speak for that node; or success with something that was not asked for.
        """
        reply = self.message
        if not isinstance(reply, DeployReported | NodeDescribed):
            raise PolicyRefused(f"a {type(reply).__name__} is no reply")
        self.policy.authorize_reply(reply, self.signer, request=request, now=now)
        refused = isinstance(reply, DeployReported) and reply.outcome == "refused"
        if refused and as_sent is not None and _same(reply.answers, as_sent):
            return
        if copy is not None and not _same(reply.answers, copy):
            raise PolicyRefused(f"{reply.node} answers another copy of this request: somebody sends under its id")


class Trust:
    """Whom one node believes, and what it lets them do. Use it from any thread.

    Args:
        trusted: returns the current allowed signers.
        policy: grants and time limits.
        node: who we are: messages for others are not addressed to us.
    """

    def __init__(self, trusted: Callable[[], AllowedSigners], policy: Policy, node: NodeName) -> None:
        self._trusted = trusted
        self.policy = policy
        self.node = node

    @classmethod
    def from_settings(
        cls,
        trust: TrustSettings,
        node: NodeName,
        *,
        trusted: Callable[[], AllowedSigners] | None = None,
        repos: Mapping[SiteName, tuple[RepoName, ...]] | None = NO_REPOS,
    ) -> Self:
        """Make it from the `[trust]` table.

        Args:
            trust: the settings.
            node: who we are.
            trusted: returns the allowed signers; by default the files are read, again whenever one has changed.
            repos: the repositories of each site, for grants that name some: `Settings.site_repos`. None on a machine
                without sites that acts on no command: there `repos` of grants is not looked at.

        Raises:
            SettingsError: grants or times are wrong.
        """
        return cls(trusted or TrustReader(trust), Policy.from_settings(trust, repos=repos), node)

    def trusted(self) -> AllowedSigners:
        """Return the keys that are trusted now: the same object while the files are unchanged.

        Raises:
            KeyFileError: they cannot be read now.
        """
        return self._trusted()

    def check(self, frame: Frame, now: datetime, *, destination: str = "") -> Verified:
        """Return who signed a frame, and its message.

        Args:
            frame: as it was received; the body byte for byte.
            now: aware.
            destination: where it came from; it tells messages of the original's format apart.

        Raises:
            SignatureError: unsigned, malformed, not by an allowed key, revoked or expired, or not for this body.
            KeyFileError: whom to believe cannot be found out now. Try again later.
            MessageError: a good signature over what is no message.
            NotAddressed: for other nodes; ignore it.
        """
        signer = self._signer_of(frame, now)
        message = decode(frame.headers, frame.body, destination)
        if message is not None and not addressed_to(message, self.node):
            raise NotAddressed(f"a {type(message).__name__} is not for {self.node}")
        return Verified(message=message, signer=signer, frame=frame, node=self.node, policy=self.policy)

    def weigh(self, body: bytes, blobs: Sequence[bytes], now: datetime) -> tuple[Signer | SignatureError, ...]:
        """Return for each signature of a body who made it, if it counts now; else why it does not.

        For what is kept and counts for longer than a message: keys are revoked and expire in the meantime.

        Args:
            body: that was verified when it came.
            blobs: its signatures, each by another key.
            now: aware.

        Raises:
            KeyFileError: whom to believe cannot be found out now. Try again later.
        """
        try:
            allowed = self._trusted()
            return tuple(_weighed(body, blob, allowed, now) for blob in blobs)
        except (KeyFileError, UsageError):
            raise
        except Exception as error:  # as in `_signer_of`
            raise KeyFileError(f"signatures cannot be checked: {type(error).__name__}: {error}") from error

    def _signer_of(self, frame: Frame, now: datetime) -> Signers:
        if HEADER not in frame.headers:
            raise SignatureError("the message is not signed", f"sign it: header {HEADER}")
        try:
            return verify(frame, self._trusted(), now)
        except (SignatureError, KeyFileError, UsageError):
            raise
        except Exception as error:  # out of files or memory, or a bug: that says nothing about the signature
            raise KeyFileError(f"signatures cannot be checked: {type(error).__name__}: {error}") from error


def _weighed(body: bytes, blob: bytes, allowed: AllowedSigners, now: datetime) -> Signer | SignatureError:
    try:
        return verify_blob(body, blob, allowed, now)
    except SignatureError as error:
        return error


def _mandate_of(message: Message) -> str | None:
    if isinstance(message, DeployRequested) and message.phase != "discard":
        return message.mandate
    return None


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


__all__ = ["Authorized", "Trust", "Verified"]
