"""Message-driven deploys over STOMP: messages, a resilient bus, git mirrors, releases.

`import deploykit` is cheap: what a name needs (stomp.py, dulwich, cattrs …) is loaded when the name is first used. Here
is what an embedding program needs; `deploykit.aio` has the bus for asyncio, `deploykit.testing` what tests need.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from deploykit._version import __version__

if TYPE_CHECKING:
    from deploykit.audit import AuditLog
    from deploykit.bus import Ack, Bus, Delivery, Handler, Reject, Retry, Subscription, Verdict
    from deploykit.bus.events import (
        BrokerReportedError,
        BusState,
        Closed,
        Connected,
        ConnectFailed,
        Connecting,
        ConnectionLost,
        Counters,
        DeadLettered,
        Dropped,
        Event,
        Published,
        PublishFailed,
        RetryIn,
        Subscribed,
        SubscriptionRefused,
    )
    from deploykit.config import load_settings
    from deploykit.daemons.agent.agent import Agent
    from deploykit.daemons.jenkins.trigger import JenkinsTrigger
    from deploykit.daemons.relay import RelayService
    from deploykit.errors import (
        AccessError,
        ActionRefused,
        AddressError,
        AuditError,
        BrokerError,
        BuildQueueError,
        BuildServerError,
        BuildStoreError,
        BusClosed,
        BusError,
        CheckoutError,
        ClientIdInUse,
        ConnectError,
        ConsoleUnreachable,
        DeadlineExceeded,
        DemoFailed,
        DeploykitError,
        DialectError,
        FactsError,
        FrameError,
        HookError,
        IdForgotten,
        IdStoreError,
        InstallError,
        InvalidName,
        JournalDamaged,
        KeyFileError,
        KeyNotTrusted,
        LedgerError,
        LfsMissing,
        LockBusy,
        LockStoreError,
        LoginRefused,
        MayNotLook,
        MessageError,
        MirrorCorrupt,
        MirrorError,
        NobodyMatches,
        NotAddressed,
        OriginError,
        OutboxError,
        PackageError,
        PackError,
        PolicyRefused,
        PreflightRefused,
        ProjectionError,
        PublishError,
        PublishManyFailed,
        PublishRefused,
        RefNotFound,
        RefRefused,
        ReleaseError,
        RolloutBusy,
        RolloutError,
        RolloutMemoryError,
        ScriptFailed,
        SelectorError,
        ServiceFailed,
        SettingsError,
        SignatureError,
        SignatureNotEnough,
        SubmoduleMissing,
        TreeDamaged,
        TreeError,
        Unsendable,
        UsageError,
        WebError,
        WebhookRefused,
        WindowFull,
    )
    from deploykit.fleet.facts import NodeFacts
    from deploykit.fleet.selection import Selection
    from deploykit.fleet.selector import Selector
    from deploykit.ids import Claim, IdStore
    from deploykit.messages import (
        AccessGrantRequested,
        AccessReported,
        AccessRevokeRequested,
        AgentInstance,
        ApprovalWanted,
        Build,
        BuildEvidence,
        BuildFinished,
        BuildRequested,
        BuildStarted,
        Commit,
        DeployProgressed,
        DeployReported,
        DeployRequested,
        HeldRef,
        LocksWanted,
        Message,
        MirrorUpdated,
        NodeDescribed,
        NodeQueried,
        Notice,
        PackagePublished,
        PackageReported,
        RefUpdated,
        RevisionCommitted,
        RolloutAbort,
        RolloutApproved,
        RolloutProposed,
        RolloutReported,
        SignedStatement,
        SiteAccess,
        SiteLocked,
        SiteOperation,
        SitePart,
        SiteRelease,
        SiteState,
        SiteUnlocked,
        StepReport,
        Unknown,
    )
    from deploykit.messages.topics import PRESETS, TopicMap, topic_of
    from deploykit.mirror import FetchResult, Mirror, RefChange
    from deploykit.names import (
        NodeName,
        ObjectId,
        RefName,
        RepoName,
        SiteName,
        parse_node_name,
        parse_object_id,
        parse_ref_name,
        parse_repo_name,
        parse_site_name,
    )
    from deploykit.outbox import Outbox
    from deploykit.release import DeployResult, Outcome, Release, Runner, Site
    from deploykit.settings import (
        AccessSettings,
        AuditSettings,
        BuildServerSettings,
        BuildsSettings,
        BusSettings,
        CheckoutSettings,
        FactsSettings,
        GrantSettings,
        JenkinsSettings,
        JobSettings,
        KeepaliveSettings,
        LogSettings,
        MirrorSettings,
        NodeSiteSettings,
        NotifySettings,
        OutboxSettings,
        PackagesSettings,
        RepositorySettings,
        Settings,
        SiteSettings,
        TrustSettings,
        ViaSettings,
        WebhookSettings,
        WebSettings,
    )
    from deploykit.trust.agentkey import AgentKey
    from deploykit.trust.allowed_signers import AllowedSigners
    from deploykit.trust.check import Authorized, Trust, Verified
    from deploykit.trust.keyfiles import load_allowed_signers, load_signer, load_signing_key
    from deploykit.trust.policy import Policy
    from deploykit.trust.signature import BodySigner, Signer, Signers, SigningKey, add_signature, sign, verify
    from deploykit.wire import Frame, decode, encode

#: The module that holds each public name; it is loaded on first use.
_MODULES = {
    "deploykit.bus": "Bus Subscription Delivery Handler Ack Retry Reject Verdict",
    "deploykit.bus.events": (
        "Event BusState Counters Connecting ConnectFailed Connected ConnectionLost RetryIn Subscribed "
        "SubscriptionRefused Published PublishFailed DeadLettered Dropped BrokerReportedError Closed"
    ),
    "deploykit.messages": (
        "Message RefUpdated RevisionCommitted Commit BuildRequested BuildStarted BuildFinished Build "
        "PackagePublished PackageReported MirrorUpdated DeployRequested DeployReported DeployProgressed StepReport "
        "BuildEvidence "
        "RolloutAbort RolloutApproved RolloutProposed ApprovalWanted RolloutReported SiteLocked SiteUnlocked "
        "LocksWanted SignedStatement NodeQueried NodeDescribed SiteState SiteOperation SitePart SiteRelease HeldRef "
        "AgentInstance SiteAccess AccessGrantRequested AccessReported AccessRevokeRequested "
        "Notice Unknown"
    ),
    "deploykit.messages.topics": "TopicMap PRESETS topic_of",
    "deploykit.names": (
        "RepoName RefName ObjectId SiteName NodeName "
        "parse_repo_name parse_ref_name parse_object_id parse_site_name parse_node_name"
    ),
    "deploykit.wire": "Frame encode decode",
    "deploykit.trust.signature": "SigningKey Signer Signers BodySigner sign add_signature verify",
    "deploykit.trust.allowed_signers": "AllowedSigners",
    "deploykit.trust.agentkey": "AgentKey",
    "deploykit.trust.keyfiles": "load_signing_key load_signer load_allowed_signers",
    "deploykit.trust.policy": "Policy",
    "deploykit.trust.check": "Trust Verified Authorized",
    "deploykit.fleet.facts": "NodeFacts",
    "deploykit.fleet.selector": "Selector",
    "deploykit.fleet.selection": "Selection",
    "deploykit.ids": "IdStore Claim",
    "deploykit.audit": "AuditLog",
    "deploykit.outbox": "Outbox",
    "deploykit.mirror": "Mirror FetchResult RefChange",
    "deploykit.release": "Site Runner DeployResult Release Outcome",
    "deploykit.settings": (
        "Settings BusSettings OutboxSettings MirrorSettings RepositorySettings CheckoutSettings SiteSettings "
        "NodeSiteSettings TrustSettings GrantSettings LogSettings BuildServerSettings AuditSettings BuildsSettings "
        "FactsSettings JenkinsSettings JobSettings WebSettings WebhookSettings AccessSettings NotifySettings "
        "PackagesSettings KeepaliveSettings ViaSettings"
    ),
    "deploykit.config": "load_settings",
    "deploykit.daemons.agent.agent": "Agent",
    "deploykit.daemons.jenkins.trigger": "JenkinsTrigger",
    "deploykit.daemons.relay": "RelayService",
    "deploykit.errors": (
        "DeploykitError InvalidName SettingsError UsageError MessageError SignatureError PolicyRefused "
        "NotAddressed KeyFileError WrongPassphrase KeyUnavailable "
        "OutboxError IdStoreError IdForgotten AuditError BusError AddressError "
        "ConnectError KeyNotTrusted SignatureNotEnough BuildStoreError RolloutMemoryError LockStoreError "
        "LoginRefused ClientIdInUse PublishError PublishRefused WindowFull Unsendable PublishManyFailed BusClosed "
        "DialectError FactsError FrameError BrokerError MirrorError OriginError PackError DeadlineExceeded RefNotFound "
        "RefRefused SubmoduleMissing LfsMissing MirrorCorrupt LockBusy TreeError TreeDamaged CheckoutError "
        "ReleaseError ScriptFailed PreflightRefused InstallError HookError BuildServerError MayNotLook ServiceFailed "
        "DemoFailed BuildQueueError SelectorError JournalDamaged NobodyMatches RolloutError RolloutBusy "
        "WebError WebhookRefused ProjectionError LedgerError ActionRefused AccessError PackageError ConsoleUnreachable"
    ),
}
_HOLDER = {name: module for module, names in _MODULES.items() for name in names.split()}

# fmt: off
__all__ = [
    "Bus", "Subscription", "Delivery", "Handler", "Ack", "Retry", "Reject", "Verdict",
    "Event", "BusState", "Counters", "Connecting", "ConnectFailed", "Connected", "ConnectionLost", "RetryIn",
    "Subscribed", "SubscriptionRefused", "Published", "PublishFailed", "DeadLettered", "Dropped",
    "BrokerReportedError", "Closed",
    "Message", "RefUpdated", "RevisionCommitted", "Commit", "BuildRequested", "BuildStarted", "BuildFinished",
    "Build", "PackagePublished", "PackageReported",
    "MirrorUpdated", "DeployRequested", "DeployReported", "StepReport", "BuildEvidence",
    "RolloutApproved", "RolloutProposed", "ApprovalWanted", "SiteLocked", "SiteUnlocked", "LocksWanted",
    "SignedStatement", "DeployProgressed", "RolloutAbort", "RolloutReported", "NodeQueried", "NodeDescribed",
    "SiteState", "SiteOperation", "SitePart", "SiteRelease", "HeldRef", "AgentInstance", "AccessGrantRequested",
    "AccessReported", "AccessRevokeRequested", "SiteAccess", "Notice", "Unknown",
    "TopicMap", "PRESETS", "topic_of",
    "RepoName", "RefName", "ObjectId", "SiteName", "NodeName",
    "parse_repo_name", "parse_ref_name", "parse_object_id", "parse_site_name", "parse_node_name",
    "Frame", "encode", "decode",
    "SigningKey", "Signer", "Signers", "BodySigner", "sign", "add_signature", "verify",
    "AllowedSigners",
    "AgentKey",
    "load_signing_key", "load_signer", "load_allowed_signers",
    "Policy",
    "Trust", "Verified", "Authorized",
    "IdStore", "Claim",
    "AuditLog",
    "Outbox",
    "Mirror", "FetchResult", "RefChange",
    "Site", "Runner", "DeployResult", "Release", "Outcome",
    "Settings", "BusSettings", "OutboxSettings", "MirrorSettings", "RepositorySettings", "CheckoutSettings",
    "SiteSettings", "NodeSiteSettings", "TrustSettings", "GrantSettings", "LogSettings", "BuildServerSettings",
    "AuditSettings", "FactsSettings", "WebSettings", "WebhookSettings", "AccessSettings", "PackagesSettings",
    "KeepaliveSettings",
    "NotifySettings", "ViaSettings", "load_settings",
    "Agent", "JenkinsTrigger", "RelayService",
    "DeploykitError", "InvalidName", "SettingsError", "UsageError", "MessageError",
    "SignatureError", "PolicyRefused", "NotAddressed", "KeyFileError", "WrongPassphrase",
    "KeyUnavailable", "OutboxError", "IdStoreError", "IdForgotten",
    "AuditError", "BuildsSettings", "KeyNotTrusted", "SignatureNotEnough", "BuildStoreError", "BusError",
    "AddressError", "JenkinsSettings", "JobSettings", "RolloutMemoryError", "LockStoreError",
    "ConnectError", "LoginRefused", "ClientIdInUse", "PublishError", "PublishRefused", "WindowFull", "Unsendable",
    "PublishManyFailed", "BusClosed", "DialectError", "FactsError", "FrameError", "BrokerError", "MirrorError",
    "OriginError", "PackError", "DeadlineExceeded", "RefNotFound", "RefRefused", "MirrorCorrupt", "LockBusy",
    "SubmoduleMissing", "LfsMissing",
    "TreeError", "TreeDamaged", "CheckoutError", "ReleaseError", "ScriptFailed", "PreflightRefused", "InstallError",
    "HookError", "JournalDamaged", "BuildServerError", "MayNotLook", "ServiceFailed", "DemoFailed", "BuildQueueError",
    "NobodyMatches", "RolloutError", "RolloutBusy", "SelectorError", "Selector", "Selection", "NodeFacts",
    "WebError", "WebhookRefused", "ProjectionError", "LedgerError", "ActionRefused", "AccessError", "PackageError",
    "ConsoleUnreachable",
    "__version__",
]
# fmt: on

# A library prints nothing: whoever embeds it decides where its logs go.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    try:
        module = _HOLDER[name]
    except KeyError:
        raise AttributeError(f"module 'deploykit' has no attribute {name!r}") from None
    found = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
