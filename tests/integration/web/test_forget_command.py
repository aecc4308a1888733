"""`deploykit web forget`, as a process, against the ledger of a console that runs."""

from __future__ import annotations

import json
from pathlib import Path

from deploykit.settings.web import WebSettings
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.ledger.tokens import KeptToken
from deploykit.web.login.passkeys import INVITATION
from tests.integration.web.test_invite_command import config
from tests.support.cli import run


def test_who_has_left_has_nothing_that_lets_them_in_and_others_keep_theirs(tmp_path: Path) -> None:
    file = config(tmp_path)
    ledger = Ledger.open(WebSettings(), tmp_path / "state")
    codes = {}
    for name in ("alice", "bob"):
        codes[name] = ledger.once.put(INVITATION, name, 3600)
        for purpose in ("login", "signing"):
            ledger.passkeys.add(KeptPasskey(credential=f"{name}-{purpose}", purpose=purpose, name=name))
        ledger.sessions.begin(f"key of {name}", name, login="passkey", proof="p")
        ledger.tokens.add(KeptToken(key=name, id=name, owner=name), seconds=3600)
    found = run("web", "forget", "alice", "--json", "--config", str(file), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {"name": "alice", "passkeys": 1, "sessions": 1, "tokens": 1, "invitations": 1}
    left = [each.credential for each in ledger.passkeys.list()]
    assert sorted(left) == ["alice-signing", "bob-login", "bob-signing"]
    assert [each.owner for each in ledger.tokens.list()] == ["bob"]
    assert (ledger.sessions.list_of("alice"), len(ledger.sessions.list_of("bob"))) == ((), 1)
    assert ledger.once.look(codes["alice"], INVITATION) is None
    assert ledger.once.look(codes["bob"], INVITATION) == "bob"
    ledger.close()
    again = run("web", "forget", "alice", "--config", str(file), cwd=tmp_path)
    assert again.stdout == "removed of alice: 0 passkeys, 0 sessions, 0 tokens, 0 invitations\n"
