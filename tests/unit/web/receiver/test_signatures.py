"""Who may speak: each scheme's proof, compared with other implementations of it, and everything that is no proof."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from deploykit.errors import SettingsError, WebhookRefused
from deploykit.settings.webhook import Forge
from deploykit.settings.webhooksecrets import signing_key_of
from deploykit.web.receiver.signatures import HEX_HEADERS, TOLERANCE, WebhookSecret, verify

BODY = b'{"zen": "Ask once."}'
NOW = 1_790_000_000.0
NEW, OLD = WebhookSecret.of("the new one"), WebhookSecret.of("the old one")
TOKEN = "whsec_" + base64.b64encode(bytes(range(32))).decode()
HEX_CASES = [(forge, name, prefix) for forge, places in HEX_HEADERS.items() for name, prefix in places]


def digest(secret: bytes, body: bytes = BODY) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def ok(
    forge: Forge,
    headers: dict[str, str],
    *secrets: WebhookSecret,
    header: str = "",
    body: bytes = BODY,
    now: float = NOW,
) -> bool:
    known = secrets or (NEW, OLD)
    try:
        verify(forge, header, known, headers, [body], now=now)
    except WebhookRefused as error:
        shows = digest(NEW.value) in str(error) or any(s.value and s.value.decode() in str(error) for s in known)
        return error.status != 401 or shows
    return True


def test_the_vector_that_github_documents() -> None:
    given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = WebhookSecret.of("It's a Secret to Everybody")
    assert ok("github", {"x-hub-signature-256": given}, secret, body=b"Hello, World!")
    assert not ok("github", {"x-hub-signature-256": given}, secret, body=b"Hello, World")


@pytest.mark.parametrize(("forge", "name", "prefix"), HEX_CASES)
def test_a_hex_digest_of_either_secret_counts(forge: Forge, name: str, prefix: str) -> None:
    assert ok(forge, {name: prefix + digest(NEW.value)})
    assert ok(forge, {name: prefix + digest(OLD.value)})
    assert ok(forge, {name: prefix + digest(OLD.value).upper()})


@pytest.mark.parametrize(("forge", "name", "prefix"), HEX_CASES)
@pytest.mark.parametrize(
    "value",
    ["", "sha256=", "sha1=" + "0" * 40, "0" * 64, "sha256=" + "0" * 64, "sha256=" + "0" * 63, "é" * 64, "sha256=%s, x"],
)
def test_anything_else_is_no_proof(forge: Forge, name: str, prefix: str, value: str) -> None:
    assert not ok(forge, {name: value})
    assert not ok(forge, {name: prefix + digest(NEW.value)[:-1]})
    assert not ok(forge, {name: f"{prefix}{digest(NEW.value)}\n"})
    assert not ok(forge, {name: f"{prefix}{digest(NEW.value)}, {prefix}{digest(NEW.value)}"})
    assert not ok(forge, {})


def test_without_a_secret_nothing_counts() -> None:
    empty = WebhookSecret(value=b"")
    assert not ok("github", {"x-hub-signature-256": "sha256=" + digest(b"")}, empty)
    assert not ok("azure", {"authorization": "Basic "}, empty)
    assert not ok("azure", {"x-own": ""}, empty, header="X-Own")
    assert not ok("gitlab", {"x-gitlab-token": ""}, empty)


def test_a_digest_under_another_forges_header_does_not_count() -> None:
    assert not ok("github", {"x-hub-signature": "sha256=" + digest(NEW.value)})
    assert not ok("gogs", {"x-gitea-signature": digest(NEW.value)})
    assert not ok("bitbucket", {"x-hub-signature-256": "sha256=" + digest(NEW.value)})


def test_gitea_with_an_empty_own_header_is_not_saved_by_another() -> None:
    assert not ok("gitea", {"x-gitea-signature": "", "x-hub-signature-256": "sha256=" + digest(NEW.value)})


@pytest.mark.parametrize("prefix", ["", "sha256="])
def test_a_generic_sender_has_its_own_header(prefix: str) -> None:
    assert ok("generic", {"x-signature": prefix + digest(NEW.value)}, header="X-Signature")
    assert not ok("generic", {"x-other": prefix + digest(NEW.value)}, header="X-Signature")


# -- GitLab ------------------------------------------------------------------------------------------------------------


def standard(token: str = TOKEN, *, at: float = NOW, body: bytes = BODY, own_id: str = "msg_1") -> dict[str, str]:
    signature = Webhook(token).sign(own_id, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": own_id, "webhook-timestamp": str(int(at)), "webhook-signature": signature}


def test_standard_webhooks_as_their_own_package_signs_them() -> None:
    token = WebhookSecret.of(TOKEN)
    assert ok("gitlab", standard(), token)
    assert ok("gitlab", standard(at=NOW - TOLERANCE + 1), token)
    several = standard()
    several["webhook-signature"] = f"v1a,AAAA v1,{'A' * 43}= {several['webhook-signature']}"
    assert ok("gitlab", several, token)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(int(NOW) + 1)},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "٣"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v2," + "A" * 44},
        {"webhook-signature": " " * 10_000},
    ],
)
def test_standard_webhooks_with_one_thing_wrong(changes: dict[str, str]) -> None:
    assert not ok("gitlab", standard() | changes, WebhookSecret.of(TOKEN))


@pytest.mark.parametrize("off", [-TOLERANCE - 1, TOLERANCE + 1])
def test_an_old_or_future_time_is_refused_though_it_is_signed(off: int) -> None:
    with pytest.raises(WebhookRefused, match="set the clocks"):
        verify("gitlab", "", [WebhookSecret.of(TOKEN)], standard(at=NOW + off), [BODY], now=NOW)


def test_while_the_token_is_changed_the_plain_one_and_the_signing_one_both_count() -> None:
    both = (WebhookSecret.of(TOKEN), OLD)
    assert ok("gitlab", standard(), *both)
    assert ok("gitlab", {"x-gitlab-token": OLD.value.decode()}, *both)
    assert not ok("gitlab", {"x-gitlab-token": TOKEN}, *both)  # a signing token is never sent
    assert not ok("gitlab", {"x-gitlab-token": "the old one "}, *both)
    assert not ok("gitlab", {"x-gitlab-token": "é"}, *both)


def test_a_signing_token_that_was_cut_off_is_found_when_it_is_read() -> None:
    for text in ("whsec_", "whsec_QUJD", "whsec_not base64", "whsec_é"):
        with pytest.raises(SettingsError, match="whsec_"):
            signing_key_of(text)


# -- Azure -------------------------------------------------------------------------------------------------------------


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def test_basic_authentication() -> None:
    secret = WebhookSecret.of("deploykit:pass:wörd")
    assert ok("azure", basic("deploykit:pass:wörd"), secret)
    assert ok(
        "azure", {"authorization": basic("deploykit:pass:wörd")["authorization"].replace("Basic", "basic")}, secret
    )
    for given in (basic("deploykit:pass"), basic(""), {"authorization": "Bearer x"}, {"authorization": "Basic é"}, {}):
        assert not ok("azure", given, secret)


def test_a_header_of_its_own_holds_the_secret_itself() -> None:
    assert ok("azure", {"x-own": "the new one"}, header="X-Own")
    assert not ok("azure", {"x-own": "the new on"}, header="X-Own")
    assert not ok("azure", basic("the new one"), header="X-Own")


def test_a_secret_is_never_shown() -> None:
    assert "new one" not in repr(NEW)
