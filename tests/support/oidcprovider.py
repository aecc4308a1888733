"""An OpenID Connect provider on loopback: real HTTP, real signatures, and every lie that a test wants of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import attrs
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT: Final = "deploykit-console"
SECRET: Final = "s3cret +/ of the client"
_PATH: Final = "/realms/ops"

Lie = Literal[
    "nonce", "no nonce", "aud", "two aud", "azp", "iss", "alg none", "hs256", "expired", "not yet", "signature",
    "at_hash", "no sub", "other sub", "no token", "huge", "500", "no json", "redirect", "answer iss", "no answer iss",
    "other issuer", "plain endpoint", "no pkce", "bad keys", "compressed",
]  # fmt: skip


@cache
def _first_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one"})


@attrs.define(kw_only=True)
class ProviderState:
    """What the provider says, and what it was asked.

    Args:
        claims: of the person who is logged in there.
        more: further claims that only the userinfo endpoint tells.
        lie: what goes wrong.
        secret: of the client; empty: a public one.
        slow: set it to let answers through; None: they come at once.
        denies: the person does not agree.
    """

    claims: dict[str, object] = attrs.field(factory=lambda: {"sub": "u-1", "preferred_username": "ann"})
    more: dict[str, object] = attrs.field(factory=dict)
    lie: Lie | Literal[""] = ""
    secret: str = SECRET
    only_post: bool = False
    slow: threading.Event | None = None
    denies: bool = False
    key: RSAKey | ECKey = attrs.field(factory=_first_key)
    algorithm: str = "RS256"
    asked: list[tuple[str, Mapping[str, str]]] = attrs.field(factory=list)
    codes: dict[str, Mapping[str, str]] = attrs.field(factory=dict)
    issuer: str = ""

    def rotate(self) -> None:
        """Sign with a new key of another kind; the old one is gone from the published set."""
        self.key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(4)})
        self.algorithm = "ES256"

    def count(self, path: str) -> int:
        """Return how often a path below the issuer was asked for."""
        return sum(path == each for each, _ in self.asked)

    # -- what it answers -----------------------------------------------------------------------------------------------

    def discovery(self) -> Mapping[str, object]:
        plain = "http://id.example.org" if self.lie == "plain endpoint" else self.issuer
        return {
            "issuer": f"{self.issuer}/other" if self.lie == "other issuer" else self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{plain}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "authorization_response_iss_parameter_supported": True,
            **({"token_endpoint_auth_methods_supported": ["client_secret_post"]} if self.only_post else {}),
            **({} if self.lie == "no pkce" else {"code_challenge_methods_supported": ["S256"]}),
        }

    def authorize(self, asked: Mapping[str, str]) -> str:
        """Return where the browser goes on."""
        iss = {"answer iss": "https://evil.example", "no answer iss": ""}.get(self.lie, self.issuer)
        answer = {"state": asked.get("state", ""), **({"iss": iss} if iss else {})}
        if self.denies:
            answer |= {"error": "access_denied", "error_description": "<b>No\r\nway</b>"}
        else:
            code = secrets.token_urlsafe(16)
            self.codes[code] = dict(asked)
            answer["code"] = code
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: Mapping[str, str], authorization: str) -> tuple[int, Mapping[str, object]]:
        """Return the answer of the token endpoint, strict as the specifications are."""
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant"}
        if form.get("redirect_uri") != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": "redirect_uri"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if asked.get("code_challenge_method") != "S256" or asked.get("code_challenge") != _url64(digest):
            return 400, {"error": "invalid_grant", "error_description": "PKCE"}
        if not self._is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        access = secrets.token_urlsafe(16)
        answer: dict[str, object] = {"access_token": access, "token_type": "Bearer", "expires_in": 60}
        if self.lie != "no token":
            answer["id_token"] = self._id_token(asked, access)
        return 200, answer

    def _is_client(self, form: Mapping[str, str], authorization: str) -> bool:
        if not self.secret:
            return form.get("client_id") == CLIENT and not authorization
        if self.only_post:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, self.secret)
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return (unquote(name.replace("+", " ")), unquote(secret.replace("+", " "))) == (CLIENT, self.secret)

    def _id_token(self, asked: Mapping[str, str], access: str) -> str:
        now = int(time.time())
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked.get("nonce", ""),
            "at_hash": _url64(half),
            **self.claims,
        }
        match self.lie:
            case "nonce":
                claims["nonce"] = "another"
            case "no nonce":
                del claims["nonce"]
            case "aud":
                claims["aud"] = "another"
            case "two aud":
                claims["aud"] = [CLIENT, "another"]
            case "azp":
                claims |= {"aud": [CLIENT, "another"], "azp": "another"}
            case "iss":
                claims["iss"] = "https://evil.example"
            case "expired":
                claims |= {"iat": now - 600, "exp": now - 300}
            case "not yet":
                claims |= {"iat": now + 600, "exp": now + 900}
            case "at_hash":
                claims["at_hash"] = _url64(bytes(16))
            case "no sub":
                claims.pop("sub")
        return self._signed(claims)

    def _signed(self, claims: Mapping[str, object]) -> str:
        if self.lie == "alg none":
            head = _url64(json.dumps({"alg": "none"}).encode())
            return f"{head}.{_url64(json.dumps(claims).encode())}."
        if self.lie == "hs256":  # the public key taken for the secret of an HMAC
            public = OctKey.import_key(json.dumps(self.key.as_dict(private=False)))
            header = {"alg": "HS256", "kid": self.key.kid}
            return jws.serialize_compact(header, json.dumps(claims), public, ["HS256"])
        text = jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, dict(claims), self.key, [self.algorithm])
        if self.lie == "signature":
            head, _, signature = text.split(".")
            return f"{head}.{_url64(json.dumps({**claims, 'preferred_username': 'root'}).encode())}.{signature}"
        return text

    def userinfo(self) -> Mapping[str, object]:
        sub = "u-666" if self.lie == "other sub" else self.claims.get("sub")
        return {**self.claims, "sub": sub, **self.more}

    def keys(self) -> Mapping[str, object]:
        if self.lie == "bad keys":
            return {"keys": [{"kty": "RSA"}, 7, {"kty": "new"}]}
        return {"keys": [self.key.as_dict(private=False)]}


@contextmanager
def oidc_provider() -> Iterator[ProviderState]:
    """Run a provider on a port of loopback."""
    state = ProviderState()
    server = _Server(("127.0.0.1", 0), _handler(state))
    state.issuer = f"http://127.0.0.1:{server.server_port}{_PATH}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="provider")
    thread.start()
    try:
        yield state
    finally:
        if state.slow is not None:
            state.slow.set()
        server.shutdown()
        server.server_close()
        thread.join(20)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True


def _handler(state: ProviderState) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            match self._asked(parts.path, asked):
                case "/.well-known/openid-configuration":
                    self._json(200, state.discovery())
                case "/authorize":
                    self._answer(302, b"", Location=state.authorize(asked))
                case "/jwks":
                    self._json(200, state.keys())
                case "/userinfo":
                    self._json(200, state.userinfo())
                case "/logout":
                    self._answer(200, b"logged out there")
                case _:
                    self._answer(404, b"no such page")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            form = dict(parse_qsl(body))
            if self._asked(urlsplit(self.path).path, form) == "/token":
                self._json(*state.token(form, self.headers.get("authorization", "")))
            else:
                self._answer(404, b"no such page")

        def _asked(self, path: str, values: Mapping[str, str]) -> str:
            below = path.removeprefix(_PATH)
            state.asked.append((below, values))
            if state.slow is not None and below != "/authorize":
                state.slow.wait(20)
            return below

        def _json(self, status: int, value: Mapping[str, object]) -> None:
            match state.lie:
                case "500":
                    self._answer(500, b"<h1>oh</h1>")
                case "no json":
                    self._answer(200, b"<h1>Welcome to the hotel</h1>")
                case "compressed":
                    packed = gzip.compress(json.dumps(value).encode())
                    self._answer(200, packed, kind="application/json", **{"Content-Encoding": "gzip"})
                case "huge":
                    self._answer(200, b'{"x": "' + b"x" * (3 << 20) + b'"}')
                case "redirect":
                    self._answer(302, b"", Location="http://127.0.0.1:1/elsewhere")
                case _:
                    self._answer(status, json.dumps(value).encode(), kind="application/json")

        def _answer(self, status: int, body: bytes, *, kind: str = "text/html", **headers: str) -> None:
            try:
                self.send_response(status)
                for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # whoever asked did not wait

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    return Handler


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
