"""The builder of requests signs as forges do: by GitHub's published vector and the `standardwebhooks` package."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.support.forges import DELIVERY, forged, signed

SECRET = b"It's a Secret to Everybody"


def test_github_signs_as_its_documentation_says() -> None:
    headers = signed("github", b"Hello, World!", SECRET)
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert headers == {"X-Hub-Signature-256": f"sha256={digest}"}


def test_gitlab_with_a_signing_token_signs_as_standard_webhooks_does() -> None:
    token = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    now = int(datetime.now(UTC).timestamp())
    request = forged("gitlab", secret=token.encode(), timestamp=now)
    assert Webhook(token).verify(request.body.decode(), request.lowered) == json.loads(request.body)
    with pytest.raises(WebhookVerificationError):
        Webhook(token).verify(request.body.decode() + " ", request.lowered)


@pytest.mark.parametrize(
    ("forge", "secret", "expected"),
    [
        ("gitlab", b"token", {"X-Gitlab-Token": "token"}),
        ("azure", b"ada:pass", {"Authorization": "Basic YWRhOnBhc3M="}),
        ("azure", b"value", {"X-Signature": "value"}),
        ("github", b"", {}),
        ("gitea", b"", {"X-Gitea-Signature": "", "X-Gogs-Signature": "", "X-Hub-Signature-256": "sha256="}),
    ],
)
def test_others_send_what_they_know(forge: str, secret: bytes, expected: dict[str, str]) -> None:
    assert signed(forge, b"body", secret) == expected


@pytest.mark.parametrize(("forge", "header"), [("gogs", "X-Gogs-Signature"), ("github", "X-Hub-Signature-256")])
def test_a_form_holds_the_payload_and_is_signed_as_the_forge_signs_it(forge: str, header: str) -> None:
    request = forged(forge, secret=SECRET, form=True)
    text = parse_qs(request.body.decode())["payload"][0].encode()
    assert json.loads(text)["ref"] == "refs/heads/main"
    signs = text if forge == "gogs" else request.body
    assert request.headers[header].removeprefix("sha256=") == hmac.new(SECRET, signs, hashlib.sha256).hexdigest()
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_request_unpacks_and_has_its_headers_in_lower_case_too() -> None:
    headers, body = request = forged("bitbucket", secret=SECRET)
    assert headers["X-Request-UUID"] == request.lowered["x-request-uuid"] == DELIVERY
    assert json.loads(body)["repository"]["full_name"] == "group/widget"
