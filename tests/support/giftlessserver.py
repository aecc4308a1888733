"""giftless, a Git LFS server from the package index, over TLS on loopback: the program that `lfsorigins` starts.

It imports giftless and the standard library only. Wait for its port.
"""

from __future__ import annotations

import base64
import importlib
import ssl
import sys
import warnings
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log one line, the login not in it."""
        print(self.command, self.path, *args[1:], file=sys.stderr, flush=True)


def _guarded(app: Callable[..., Iterable[bytes]], login: str) -> Callable[..., Iterable[bytes]]:
    """Answer nobody without the login."""
    right = f"Basic {base64.b64encode(login.encode()).decode()}"

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.pop("HTTP_AUTHORIZATION", "") != right:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # else the answer may be lost
            start_response("401 Unauthorized", [("WWW-Authenticate", "Basic realm=lfs"), ("Content-Length", "0")])
            return []
        return app(environ, start_response)

    return guarded


def everybody(_request: object) -> object:
    """Return who may do everything: `_guarded` has asked for the login.

    giftless's own `allow_anon` denies each object by itself.
    """
    identity: Any = importlib.import_module("giftless.auth.identity")
    return type("Everybody", (identity.Identity,), {"is_authorized": lambda *_: True})()


def main(port: str, storage: str, cert: str, key: str, login: str) -> None:
    """Serve until the process is ended."""
    warnings.simplefilter("ignore")
    options = {"storage_options": {"path": storage}}
    config = {
        "LEGACY_ENDPOINTS": False,
        "AUTH_PROVIDERS": ["__main__:everybody"],
        "TRANSFER_ADAPTERS": {"basic": {"options": options}},
        "PRE_AUTHORIZED_ACTION_PROVIDER": None,  # it signs for nobody: each download needs the login
    }
    app = importlib.import_module("giftless.app").init_app(additional_config=config)
    server = make_server(
        "127.0.0.1", int(port), _guarded(app, login) if login else app, server_class=_Server, handler_class=_Quiet
    )
    server.base_environ["HTTPS"] = "on"  # from which wsgiref takes the scheme of the addresses that giftless names
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
