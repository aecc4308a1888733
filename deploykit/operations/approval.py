"""What a person is shown before they sign a mandate, and what their signature would be worth. All from its bytes.

Rules:

* Everything that is shown is decoded from the very bytes that are signed. A local mirror's line is marked as ours.
* A signature that does not fit the bytes, or that nobody can read, is never added: it would spoil all others.
* What nodes trust, they decide by their own files. What is said here rests on those of this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import attrs

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.errors import DeploykitError, KeyNotTrusted, PolicyRefused, SignatureError
from deploykit.fleet.mandates import HeldMandate
from deploykit.git.commits import commit_of
from deploykit.git.repository import Repository
from deploykit.messages.base import one_line
from deploykit.names import ObjectId, RepoName
from deploykit.operations.mandatefiles import blobs_of, body_problems, with_blobs
from deploykit.settings.node import Settings
from deploykit.trust.agentkey import SECURITY_KEY, AgentKey
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.certificate import parse_certificate
from deploykit.trust.check import Trust
from deploykit.trust.keyformat import MalformedBlob, fingerprint, key_type, parse_key
from deploykit.trust.mandate import Mandate, Requirement
from deploykit.trust.policy import Policy
from deploykit.trust.rights import OVERRIDE
from deploykit.trust.signature import BodySigner, Signer, Signers, SigningKey, add_signature, verify_blob
from deploykit.trust.signingprincipals import certificate_principals, key_principals
from deploykit.trust.sshsig import decode_blob
from deploykit.trust.verification import fits

#: Characters of a commit's line that are shown.
_LINE: Final = 120


@attrs.frozen(kw_only=True, slots=True)
class ShownSignature:
    """One signature under a mandate.

    Args:
        key: the public key blob.
        key_type: as OpenSSH names it.
        signer: who signed, where the key is trusted here and the signature counts.
        problem: why it does not count here; empty where it does.
        fits: the key made it over these bytes, whether anybody trusts the key or not.
    """

    key: bytes = attrs.field(repr=False)
    key_type: str
    signer: Signer | None
    problem: str
    fits: bool

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256 name."""
        return fingerprint(self.key)


@attrs.frozen(kw_only=True, slots=True)
class LocalCommit:
    """What a local mirror has of a commit. No part of what is signed."""

    repo: RepoName
    line: str
    author: str


@attrs.frozen(kw_only=True, slots=True)
class ApprovalSheet:
    """A mandate as it is shown.

    Args:
        held: the bytes, and what they say.
        signatures: in the order in which they stand there.
        problems: why nobody should sign it here; empty for none.
        commit: what a local mirror says of the commit; None where there is none.
        requirement: what the site asks for, where the settings of this machine know the site.
        missing: what the site asks for and the signatures do not give; empty where they do, or nobody knows.
        warning: why its override of a lock may not be obeyed; empty for no reason known here.
    """

    held: HeldMandate
    signatures: tuple[ShownSignature, ...]
    problems: tuple[str, ...]
    commit: LocalCommit | None = None
    requirement: Requirement | None = None
    missing: str = ""
    warning: str = ""


class ApprovalDesk:
    """Judges mandates by the settings of this machine.

    Args:
        settings: of this machine; None where there are none.
        trust: whose signatures count, as far as it is known here; None where it is not.
        allowed: the keys of `trust`.
        asks: the least that counts as enough, whatever the settings say of the site; None: that alone.
    """

    def __init__(
        self,
        settings: Settings | None,
        trust: Trust | None,
        allowed: AllowedSigners | None,
        asks: Requirement | None = None,
    ) -> None:
        self._settings = settings
        self._trust = trust
        self._allowed = allowed
        self._asks = asks

    def asking(self, asks: Requirement | None) -> ApprovalDesk:
        """Return a desk that asks for this, too."""
        return ApprovalDesk(self._settings, self._trust, self._allowed, asks)

    @classmethod
    def from_settings(cls, settings: Settings | None) -> ApprovalDesk:
        """Make one; the files of allowed signers are read now.

        Raises:
            KeyFileError: they cannot be read.
        """
        from deploykit.trust.keyfiles import load_trusted

        if settings is None or settings.trust.allowed_signers is None:
            return cls(settings, None, None)
        allowed = load_trusted(settings.trust)
        # A desk without sites cannot know their repositories; the nodes judge by them.
        repos = settings.site_repos or None
        trust = Trust.from_settings(settings.trust, settings.node, trusted=lambda: allowed, repos=repos)
        return cls(settings, trust, allowed)

    @property
    def knows_signers(self) -> bool:
        """Whether the settings of this machine say whose keys count."""
        return self._trust is not None

    def sheet(self, held: HeldMandate, now: datetime) -> ApprovalSheet:
        """Return a mandate as it is shown.

        Raises:
            SignatureError: the header of its signatures is malformed.
        """
        signatures = tuple(self._shown(held, blob, now) for blob in blobs_of(held))
        requirement = self._requirement(held)
        return ApprovalSheet(
            held=held,
            signatures=signatures,
            problems=body_problems(held),
            commit=self._commit(held.message.commit),
            requirement=requirement,
            missing=self._missing(held, signatures, requirement, now),
            warning=self._warning(held, signatures),
        )

    def counting(self, held: HeldMandate, now: datetime) -> tuple[HeldMandate, tuple[ShownSignature, ...]]:
        """Return a mandate with the signatures that count here, and those that were left out.

        A node believes a message only where all its signatures are good: one of a stranger would spoil the others.
        """
        shown = [(blob, self._shown(held, blob, now)) for blob in blobs_of(held)]
        kept = tuple(blob for blob, each in shown if not each.problem)
        return with_blobs(held, kept), tuple(each for _, each in shown if each.problem)

    def fitting(self, held: HeldMandate) -> HeldMandate:
        """Accept a mandate whose signatures all fit its bytes, whoever made them.

        Raises:
            SignatureError: one does not: the file was changed.
        """
        for blob in blobs_of(held):
            parts = decode_blob(blob)
            try:
                good = fits(parts, held.frame.body)
            except MalformedBlob:
                good = False
            if not good:
                raise SignatureError(
                    f"a signature by key {fingerprint(parts.key)} does not fit these bytes: the file was changed",
                    "have it signed again",
                )
        return held

    def signed(self, held: HeldMandate, key: BodySigner) -> HeldMandate:
        """Return a mandate with a signature by this key, over the bytes that it has.

        Raises:
            SignatureError: it has four of other keys, or what the key made does not fit: it is not added.
        """
        made = HeldMandate(message=held.message, frame=add_signature(held.frame, key))
        return self.fitting(made)

    def judge(self, held: HeldMandate, now: datetime) -> str:
        """Return why nodes that trust as this machine does would not heed a mandate; empty where they would."""
        sheet = self.sheet(held, now)
        return self._missing(held, sheet.signatures, sheet.requirement or Requirement(), now)

    def notes_on_key(self, sheet: ApprovalSheet, signing: BodySigner, now: datetime) -> tuple[str, ...]:
        """Return why a signature by this key would be worth less than a person may think, a line each."""
        return tuple(self._notes_on_key(sheet, signing, now))

    def _notes_on_key(self, sheet: ApprovalSheet, signing: BodySigner, now: datetime) -> Iterator[str]:
        key, name, site = signing.public_blob, signing.fingerprint, sheet.held.message.site
        if self._trust is None or self._allowed is None:
            yield "which keys count is not known here: trust.allowed_signers is not set"
            return
        try:
            signer = _probe(signing, self._allowed, now)
        except SignatureError as error:
            yield f"{one_line(error.problem)}: nodes that trust as this machine does will refuse it"
            return
        if not self._may(sheet.held, signer, now):
            yield f"key {name} may not approve this rollout of site {site}: no grant for rollout.approved fits it here"
            return
        if sheet.requirement is not None and sheet.requirement.require == "person" and not signer.present:
            yield f"site {site} asks for keys that show that a person touched them: a {key_type(key)} key does not"
        others = [each.signer for each in sheet.signatures if each.signer is not None and each.key != key]
        before, after = (Requirement(signatures=len(others) + more) for more in (0, 1))
        if (
            others
            and not self._refusal(sheet.held, others, before, now)
            and self._refusal(sheet.held, [*others, signer], after, now)
        ):
            yield f"key {name} may sign as somebody who has signed already: it counts as no further person"

    def _shown(self, held: HeldMandate, blob: bytes, now: datetime) -> ShownSignature:
        parts, body = decode_blob(blob), held.frame.body
        good, signer, problem = False, None, ""
        with contextlib.suppress(MalformedBlob):  # fits nothing
            good = fits(parts, body)
        if not good:
            problem = "it does not fit these bytes"
        elif self._allowed is None:
            problem = "which keys count is not known here"
        else:
            try:
                signer = verify_blob(body, blob, self._allowed, now)
            except KeyNotTrusted as error:
                problem = one_line(error.problem)
            except SignatureError as error:
                problem = one_line(error.problem)
        if signer is not None and not self._may(held, signer, now):
            problem = "no grant for rollout.approved fits it here"
        return ShownSignature(key=parts.key, key_type=parts.public.key_type, signer=signer, problem=problem, fits=good)

    def _policy(self, held: HeldMandate) -> Policy:
        """Return the policy of this machine; what grants say of repositories counts where the site is known here."""
        policy = self._trust.policy if self._trust is not None else Policy()
        known = self._settings is not None and held.message.site in self._settings.sites
        return attrs.evolve(policy, repos=self._settings.site_repos if known and self._settings is not None else None)

    def _may(self, held: HeldMandate, signer: Signer, now: datetime) -> bool:
        """Return whether a grant lets a key approve a mandate. Leaving out builds is for all signers together."""
        message = attrs.evolve(held.message, without_build=False)
        return not self._refusal(attrs.evolve(held, message=message), [signer], Requirement(), now)

    def _refusal(self, held: HeldMandate, signers: Sequence[Signer], requirement: Requirement, now: datetime) -> str:
        """Return why signers are not enough for a mandate; whether it is over does not count here."""
        if self._trust is None:
            return ""
        at = max(held.message.not_before, min(now, held.message.not_after))
        mandate = Mandate(
            message=held.message,
            signers=Signers(each=tuple(sorted(signers, key=lambda signer: signer.fingerprint))),
            digest=held.digest,
        )
        try:
            self._policy(held).judge_mandate(mandate, requirement, at)
        except PolicyRefused as error:
            return one_line(error.problem)
        return ""

    def _missing(
        self,
        held: HeldMandate,
        signatures: Sequence[ShownSignature],
        requirement: Requirement | None,
        now: datetime,
    ) -> str:
        if requirement is None or self._trust is None:
            return ""
        signers = [each.signer for each in signatures if each.signer is not None]
        if not signers:
            return "nobody has signed it whose key counts here"
        return self._refusal(held, signers, requirement, now)

    def _warning(self, held: HeldMandate, signatures: Sequence[ShownSignature]) -> str:
        message = held.message
        if self._trust is None or not message.override_lock:
            return ""
        may = self._policy(held).may
        if any(each.signer is not None and may(OVERRIDE, each.signer, message.site) for each in signatures):
            return ""
        return "nobody who has signed has the right lock.override: it is obeyed only where one of them holds the lock"

    def _requirement(self, held: HeldMandate) -> Requirement | None:
        site = self._settings.sites.get(held.message.site) if self._settings is not None else None
        return Requirement.of(site).and_also(self._asks) if site is not None else self._asks

    def _commit(self, commit: ObjectId | None) -> LocalCommit | None:
        if commit is None or self._settings is None:
            return None
        for repo in self._settings.repositories:
            path = mirror_path(self._settings, repo)
            with contextlib.suppress(DeploykitError, OSError, ValueError):  # no mirror, or not this repository's
                if (path / "HEAD").exists():
                    with Repository(path) as repository:
                        found = commit_of(repository.store, commit.encode())
                        line = found.message.decode("utf-8", "replace").partition("\n")[0]
                        author = found.author.decode("utf-8", "replace").partition("<")[0]
                        return LocalCommit(repo=repo, line=one_line(line, _LINE), author=one_line(author, _LINE))
        return None


def _probe(signing: BodySigner, allowed: AllowedSigners, now: datetime) -> Signer:
    """Return who a good signature by this key would be by.

    Raises:
        SignatureError: it would not count.
    """
    key, blob = signing.public_blob, signing.certificate if isinstance(signing, SigningKey | AgentKey) else b""
    certificate = parse_certificate(blob) if blob else None
    if certificate is not None:
        principals = certificate_principals(certificate, allowed, now)
    else:
        principals = key_principals(key, allowed, now)
    if never := allowed.rules.never(parse_key(key)):
        raise SignatureError(f"key {fingerprint(key)} does not count: {never}")
    kind = key_type(key)
    return Signer(
        fingerprint=fingerprint(key), principals=principals, key_type=kind, present=kind.startswith(SECURITY_KEY)
    )


__all__ = ["ApprovalDesk", "ApprovalSheet", "LocalCommit", "ShownSignature"]
