"""The module that signs, in a real browser with a virtual authenticator: what it makes, ssh-keygen and nodes accept."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from deploykit.errors import SignatureError
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import SitePart
from deploykit.messages.site import id_of
from deploykit.names import ObjectId, RefName, RepoName, parse_node_name, parse_repo_name, parse_site_name
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.mandatefiles import mandate_frame
from deploykit.settings import GrantSettings, Settings, TrustSettings
from deploykit.settings.site import NodeSiteSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import HEADER, verify
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import armor, decode_header, signed_bytes
from deploykit.wire import CONTENT_TYPE, Frame
from tests.support.browser import chromium, tab
from tests.support.consoleserver import serving
from tests.support.passkeys import VirtualAuthenticator, mandate_body, page_alone
from tests.support.sshkeygen import SshKeygen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@attrs.frozen(kw_only=True)
class Signing:
    """A page that has loaded the module, and a passkey that it has made."""

    page: Page
    origin: str
    authenticator: VirtualAuthenticator
    line: str
    key: dict[str, str]

    def run(self, script: str, value: object = None) -> Any:
        """Run a function of the module `m` with a value that JSON can hold."""
        return self.page.evaluate(f"async (v) => {{ const m = await import('/static/sign.mjs'); {script} }}", value)

    def signed(self, body: bytes, rp_id: str = "localhost") -> str:
        """Have the passkey sign a body; return the header's value."""
        text = base64.b64encode(body).decode()
        return str(
            self.run(
                "const challenge = await m.signedBytes(m.fromBase64(v.body));"
                "return m.sign({ challenge, rpId: v.rp, keys: [v.key] });",
                {"body": text, "key": self.key, "rp": rp_id},
            )
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def signing(browser: Browser) -> Iterator[Signing]:
    with serving(page_alone()) as server, tab(browser) as opened:
        origin = server.url.replace("127.0.0.1", "localhost").rstrip("/")
        opened.page.goto(origin)
        device = VirtualAuthenticator(opened.page)
        bare = Signing(page=opened.page, origin=origin, authenticator=device, line="", key={})
        made = bare.run(
            "const made = await m.enrol({ challenge: 'c', rpId: 'localhost', sites: 'shop', who: 'ann',"
            " principal: 'ann@example.com' });"
            "return { line: made.line, id: JSON.parse(made.registration).id, key: m.toBase64Url(made.blob) };"
        )
        yield attrs.evolve(bare, line=made["line"], key={"id": made["id"], "key": made["key"]})


def allowed(signing: Signing, *, origin: str = "", rp_id: str = "localhost") -> AllowedSigners:
    rules = SignatureRules(
        origins=frozenset({origin or signing.origin}), rp_ids=frozenset({rp_id}), verify_required=True
    )
    return attrs.evolve(AllowedSigners.parse(signing.line), rules=rules)


def frame(body: bytes, header: str) -> Frame:
    return Frame({"content-type": CONTENT_TYPE, HEADER: header}, body)


def test_what_it_signs_ssh_keygen_and_nodes_accept(signing: Signing, tmp_path: Path) -> None:
    oracle, body = SshKeygen(tmp_path), mandate_body()
    for _ in range(8):  # r and s with and without a leading zero
        header = signing.signed(body)
        good = oracle.verify(body, armor(decode_header(header)), signing.line + "\n", principal="ann@example.com")
        assert b"Good" in good.stdout, good.stderr
        signer = verify(frame(body, header), allowed(signing), datetime.now(UTC))
        assert signer.is_principal("ann@example.com")
        assert all(each.present and each.verified for each in signer.each)
        with pytest.raises(SignatureError, match="not about this message"):
            verify(frame(body + b" ", header), allowed(signing), datetime.now(UTC))


def test_the_desk_of_approvals_counts_it_where_a_site_asks_for_a_person(signing: Signing, tmp_path: Path) -> None:
    """As the console judges a signature that was posted: by the settings of its machine, as nodes do."""
    file = tmp_path / "allowed_signers"
    file.write_text(signing.line + "\n")
    grant = GrantSettings(principal="ann@example.com", types=("rollout.approved",), sites=("shop",))
    site = NodeSiteSettings(path=tmp_path / "shop", repo=parse_repo_name("shop"), require="person")

    def missing(body: bytes, header: str, *, origin: str = signing.origin) -> str:
        trust = TrustSettings(allowed_signers=file, grants=(grant,), origins=(origin,), rp_ids=("localhost",))
        settings = Settings(node=parse_node_name("ops-1"), trust=trust, sites={parse_site_name("shop"): site})
        held = HeldMandate.of_frame(mandate_frame(body, header))
        return ApprovalDesk.from_settings(settings).sheet(held, datetime.now(UTC)).missing

    body, other = mandate_body(), mandate_body(commit="0" * 40)
    header = signing.signed(body)
    assert missing(body, header) == ""
    assert missing(other, header)  # the commit swapped behind what was signed
    assert missing(mandate_body(rollout="shop-2"), header)  # the mandate used for another rollout
    assert missing(body, header, origin="https://sign.example.org")  # the console's own page, where another one signs


def test_the_passkey_is_kept_under_a_name_that_says_what_it_releases(signing: Signing) -> None:
    (credential,) = signing.authenticator.credentials
    assert (credential["userName"], credential["userDisplayName"]) == ("SIGN shop releases (ann)",) * 2
    assert credential["isResidentCredential"]
    assert signing.line.endswith(" SIGN shop releases (ann)")


def test_the_console_reads_what_deploykit_writes(signing: Signing) -> None:
    mandates = [
        mandate_body(),
        mandate_body(ref=None, commit=None, phases=()),
        mandate_body(correlation_id=None, reason='a"\\\n\x7f\u2028é\x01/<\N{GRINNING FACE}', without_build=True),
        mandate_body(override_lock="fire", rollout="r\N{CYRILLIC SMALL LETTER O}", commit="a" * 64),
        mandate_body(time=datetime(2026, 3, 1, 12, 0, 0, 1200, tzinfo=UTC)),
    ]
    for body in (*mandates, OF_PARTS):
        read = signing.run("return m.readMandate(m.fromBase64(v));", base64.b64encode(body).decode())
        data = json.loads(body)["data"]
        assert {name: read[name] for name in data} == data


def without(body: bytes, name: str) -> bytes:
    event = json.loads(body)
    del event["data"][name]
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def changed(body: bytes, **values: object) -> bytes:
    event = json.loads(body)
    event["data"].update(values)
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


PARTS = (
    SitePart(repo=RepoName("app"), ref=RefName("refs/tags/v3"), commit=ObjectId("3" * 40)),
    SitePart(repo=RepoName("group/theme"), ref=RefName("refs/heads/main"), commit=ObjectId("7" * 40)),
)
OF_PARTS = mandate_body(ref=None, commit=id_of(PARTS), parts=PARTS)
BODY = mandate_body()
REFUSED = {
    "parts beside a ref": changed(OF_PARTS, ref="refs/tags/v3"),
    "parts without their id": changed(OF_PARTS, commit=None),
    "no parts where they stand": changed(OF_PARTS, parts=[]),
    "a ref that is none without parts": without(OF_PARTS, "parts"),
    "parts in another order": changed(OF_PARTS, parts=json.loads(OF_PARTS)["data"]["parts"][::-1]),
    "a repository twice": OF_PARTS.replace(b'"group/theme"', b'"app"'),
    "an unknown field of a part": OF_PARTS.replace(b'{"repo":"app"', b'{"signed":true,"repo":"app"'),
    "another order of a part's fields": OF_PARTS.replace(
        b'"repo":"app","ref":"refs/tags/v3"', b'"ref":"refs/tags/v3","repo":"app"'
    ),
    "a name twice in a part": OF_PARTS.replace(b'{"repo":"app"', b'{"repo":"app","repo":"app"'),
    "a part that is none": changed(OF_PARTS, parts=[1]),
    "an unknown field": changed(BODY, also="x"),
    "an unknown field that an object has anyway": BODY.replace(b'"site":', b'"__proto__":{},"site":'),
    "an unknown attribute": BODY.replace(b'"specversion"', b'"more":"x","specversion"'),
    "a name twice": BODY.replace(b'"site":"shop"', b'"site":"shop","site":"shop"'),
    "a name twice, the second in escapes": BODY.replace(b'"site":"shop"', b'"site":"shop","s\\u0069te":"shop"'),
    "another order": BODY.replace(b'"site":"shop","rollout":"shop-1"', b'"rollout":"shop-1","site":"shop"'),
    "a blank": BODY.replace(b'"site":', b'"site": '),
    "a line feed at the end": BODY + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "an escape that is not needed": BODY.replace(b'"shop"', b'"sh\\u006fp"', 1),
    "no UTF-8": BODY.replace(b"carts", b"cart\xff"),
    "another type": BODY.replace(b"rollout.approved", b"deploy.requested"),
    "another version": BODY.replace(b'"1.0"', b'"1.1"'),
    "no message": b"[]",
    "nothing": b"",
    "no nodes": changed(BODY, nodes=[]),
    "a node twice": changed(BODY, nodes=["web1", "web1"]),
    "a node that is no name": changed(BODY, nodes=["web1, and 9 others"]),
    "a site that is no name": changed(BODY, site="sh\u202eop"),
    "a phase that goes back": changed(BODY, phases=["rollback"]),
    "a phase that is a list": changed(BODY, phases=[["deploy"]]),
    "a ref without a commit": changed(BODY, commit=None),
    "a short commit": changed(BODY, commit="9d2c1f0e"),
    "phases without a commit": changed(BODY, commit=None, ref=None),
    "nothing that is allowed": changed(BODY, phases=[], allow_rollback=False),
    "a switch that is a text": changed(BODY, allow_rollback="yes"),
    "a time without a zone": changed(BODY, not_after="2026-03-01T12:00:00"),
    "a time that is none": changed(BODY, not_after="2026-13-01T12:00:00Z"),
    "an end before the beginning": changed(BODY, not_after="2020-03-01T12:00:00Z"),
    "a rollout with a line end": changed(BODY, rollout="a\nb"),
    "too many nodes": changed(BODY, nodes=[f"web{number}" for number in range(10_001)]),
    "too long": changed(BODY, reason="x" * (1 << 20)),
    **{f"no {name}": without(BODY, name) for name in json.loads(BODY)["data"]},
}


def test_what_it_does_not_understand_it_does_not_offer(signing: Signing) -> None:
    assert all(body not in (BODY, OF_PARTS) for body in REFUSED.values())
    found = signing.run(
        "return v.map((body) => { try { m.readMandate(m.fromBase64(body)); return ''; }"
        " catch (error) { return error instanceof m.Refusal ? error.message : `mistake: ${error}`; } });",
        [base64.b64encode(body).decode() for body in REFUSED.values()],
    )
    offered = [what for what, why in zip(REFUSED, found, strict=True) if not why or why.startswith("mistake")]
    assert offered == []


def test_a_mandate_is_shown_with_nothing_hidden(signing: Signing) -> None:
    body = mandate_body(
        ref="refs/tags/v\N{CYRILLIC SMALL LETTER A}1",
        reason="x\n\u202e" + "y" * 400,
        requested_by="<b>ann</b>",
        override_lock="fi\u200bre",
        without_build=True,
        nodes=tuple(f"web{number}" for number in range(300)),
    )
    rows = signing.run("return m.rowsOf(m.readMandate(m.fromBase64(v)));", base64.b64encode(body).decode())
    shown = {label: text for label, text, *_ in rows}
    assert shown["Ref"] == "refs/tags/v\N{CYRILLIC SMALL LETTER A}1, written refs/tags/v\\u{430}1"
    assert shown["300 nodes"].split(", ") == [f"web{number}" for number in range(300)]
    assert shown["Says"].startswith("requested by <b>ann</b>: x\\u{a}\\u{202e}yyy")
    assert shown["Says"].endswith("… (403 characters)")
    assert shown["Lock"] == "IS OVERRIDDEN, for this reason: fi\\u{200b}re"
    assert [label for label, _, *warns in rows if any(warns)] == ["Builds", "Lock"]


def test_a_mandate_for_several_repositories_shows_each_of_them(signing: Signing) -> None:
    script = "const made = m.readMandate(m.fromBase64(v)); return [m.rowsOf(made), m.purposeOf(made)];"
    found = signing.run(script, base64.b64encode(OF_PARTS).decode())
    assert [row[:2] for row in found[0][1:4]] == [
        ["Of app", f"refs/tags/v3, {'3' * 40}"],
        ["Of group/theme", f"refs/heads/main, {'7' * 40}"],
        ["Id of all", id_of(PARTS)],
    ]
    assert found[1] == "Sign: v3+main on 5 nodes of shop"


def test_a_passkey_that_does_not_know_the_person_signs_nothing(signing: Signing) -> None:
    signing.authenticator.verified(False)
    try:
        with pytest.raises(Exception, match=r"NotAllowedError|did not ask who you are"):
            signing.signed(BODY)
    finally:
        signing.authenticator.verified(True)


def test_a_signing_key_is_of_no_use_under_another_relying_party(signing: Signing) -> None:
    """The browser itself refuses: neither a page nor a console that was taken over can ask for it elsewhere."""
    with pytest.raises(Exception, match="SecurityError"):
        signing.signed(BODY, rp_id="sign.localhost")


def test_a_challenge_that_was_swapped_at_a_login_makes_no_mandate(signing: Signing, browser: Browser) -> None:
    """A console that was taken over gives the login the bytes of a mandate: the login's key is not trusted."""
    made = signing.run(
        "const made = await navigator.credentials.create({ publicKey: { rp: { id: 'localhost', name: 'login' },"
        " user: { id: new Uint8Array([7]), name: 'ann', displayName: 'ann' }, challenge: new Uint8Array(32),"
        " pubKeyCredParams: [{ type: 'public-key', alg: -7 }] } });"
        "const blob = m.keyBlob(new Uint8Array(made.response.getPublicKey()).slice(-65), 'localhost');"
        "return { id: made.id, key: m.toBase64Url(blob) };"
    )
    header = attrs.evolve(signing, key=made).signed(BODY)
    assert header  # the browser signs it: what a login's challenge means, only the server knows
    with pytest.raises(SignatureError, match=r"not trusted|not among|no line|unknown"):
        verify(frame(BODY, header), allowed(signing), datetime.now(UTC))


def test_a_signature_that_was_asked_for_by_another_page_does_not_count(signing: Signing) -> None:
    header = signing.signed(BODY)
    with pytest.raises(SignatureError, match=r"not in trust\.origins"):
        verify(frame(BODY, header), allowed(signing, origin="https://sign.example.org"), datetime.now(UTC))
    with pytest.raises(SignatureError, match=r"not in trust\.rp_ids"):
        verify(frame(BODY, header), allowed(signing, rp_id="sign.example.org"), datetime.now(UTC))


def test_the_challenge_is_the_signed_bytes(signing: Signing) -> None:
    text = signing.run("return m.toBase64(await m.signedBytes(m.fromBase64(v)));", base64.b64encode(BODY).decode())
    assert base64.b64decode(text) == signed_bytes(BODY)


@pytest.mark.parametrize(
    ("der", "numbers"),
    [
        ("3006020101020102", ["01", "02"]),
        ("3007020200ff020101", ["00ff", "01"]),
        ("300702020001020101", ["01", "01"]),
    ],
)
def test_numbers_get_their_one_form(signing: Signing, der: str, numbers: list[str]) -> None:
    script = "return m.numbersOf(Uint8Array.from(v)).map((n) => [...n]);"
    assert [bytes(each).hex() for each in signing.run(script, list(bytes.fromhex(der)))] == numbers


@pytest.mark.parametrize(
    "der",
    [
        "",
        "30",
        "3006020100020102",
        "300602010102010203",
        "3003020101",
        "3009020101020102020103",
        "3006020501020102",
        "300402000200",
    ],
)
def test_what_is_no_signature_is_refused(signing: Signing, der: str) -> None:
    script = "try { m.numbersOf(Uint8Array.from(v)); return ''; } catch (error) { return error.message; }"
    assert "no signature" in signing.run(script, list(bytes.fromhex(der)))
