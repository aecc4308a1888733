"""What it costs to believe a node: verify and decode a `DeployReported` of 2 KB, beside a bare Ed25519 verification.

`python tests/benchmarks/bench_trust.py [--rounds N] [--loops N] [--keys N] [--json] [--check]`

Each case is `Trust.check` as an agent or a coordinator calls it, with its trusted files on disk: header, signature,
whose key it is, and the decoded message. The bare verification is one call of `cryptography` with a key object that is
ready, over as many bytes. All cases take turns within each round, so that a noisy machine hits them alike; the ratio
to the bare verification is taken per round and its median shown. Then: how long the files of many keys take to load,
and how much memory a key takes. With `--check` the exit code is 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploykit.messages import DeployReported
from deploykit.messages.deploy import StepReport
from deploykit.messages.site import SiteRelease
from deploykit.names import NodeName, parse_object_id, parse_ref_name, parse_site_name
from deploykit.settings import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.keyformat import key_blob, public_line
from deploykit.trust.signature import BodySigner, add_signature, sign
from deploykit.trust.sshsig import signed_bytes
from deploykit.wire import Frame, decode, encode
from tests.support.certificates import AUTHORITY, CertificateMaker, packed
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

ROUNDS = 41
LOOPS = 50
KEYS = 50_000
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
#: Times a bare verification of Ed25519.
LIMITS = {
    "one key": 2.2,
    "many keys": 2.2,
    "many revoked": 2.2,
    "certificate": 2.6,
    "four signatures": 6.2,
    "sk-ed25519": 2.5,
    "sk-ecdsa": 3.0,
    "passkey": 3.2,
}
#: Seconds of CPU to load the files of many keys.
LOAD_LIMIT = 1.0


def report() -> DeployReported:
    """Make a node's reply to a deploy: nine steps, some output, 2 KB."""
    commit = parse_object_id(hashlib.sha1(b"1", usedforsecurity=False).hexdigest())
    ref = parse_ref_name("refs/tags/v2026.11.3")
    names = ("fetch", "check out", "substitute", "before-activate", "activate", "reload", "after", "check", "clean up")
    steps = tuple(
        StepReport(
            name=name,
            outcome="done",
            seconds=0.25 * number,
            exit_code=0 if number % 2 else None,
            output="" if number % 3 else f"{name}: 1,234 files, nothing unusual\n" * 2,
        )
        for number, name in enumerate(names)
    )
    return DeployReported(
        id="5a9c1e6e-0a2c-4c6f-9a53-3d1f1f0e8a11",
        source="agent/web12345",
        time=NOW,
        correlation_id="0d4fc7a2-57c2-4f4e-a3f7-3b2f8f4a1a55",
        node=NodeName("web12345"),
        site=parse_site_name("shop"),
        request="9b1f4f6e-7f0b-45ce-9c0d-3a1d1f0e8a12",
        answers=hashlib.sha256(b"request").hexdigest(),
        phase="activate",
        outcome="success",
        ref=ref,
        commit=commit,
        release="20261123-120000-6b86b273",
        live_known=True,
        target=SiteRelease(release="20261123-120000-6b86b273", ref=ref, commit=commit),
        previous=SiteRelease(release="20261122-090000-4e074085", ref=ref, commit=commit),
        detail="live since 12:00:03; 14 workers were reloaded",
        steps=steps,
    )


def node_lines(count: int) -> Iterator[str]:
    """Yield lines of an `allowed_signers` file for so many nodes, each with a key of its own."""
    for number in range(count):
        key = public_line(key_blob(hashlib.sha256(number.to_bytes(4, "big")).digest()))
        yield f'node{number:05}.shop.example.com namespaces="deploykit" {key} node{number:05} of the shop\n'


@attrs.frozen(kw_only=True, slots=True)
class Case:
    """One way to trust, and a message that it lets pass."""

    trust: Trust
    frame: Frame

    def check(self) -> object:
        """Verify and decode the message, as for each that arrives."""
        return self.trust.check(self.frame, NOW)


def make_cases(root: Path, keys: int) -> dict[str, Case]:
    """Make the cases, with their files below `root`."""
    frame, key = encode(report()), fixed_key(1)
    nodes = "".join(node_lines(keys))
    mine = f'web12345 namespaces="deploykit" {key.public_openssh}\n'
    revoked = "\n".join(line.split('"')[2].strip() for line in nodes.splitlines())
    certificate = CertificateMaker(key=key.public_blob, principals=packed("web12345"), key_id="web12345").make()
    signers: dict[str, BodySigner] = {
        "sk-ed25519": SoftwareSecurityKey.ed25519(),
        "sk-ecdsa": SoftwareSecurityKey.ecdsa(),
        "passkey": SoftwarePasskey("https://deploy.example.org", "deploy.example.org"),
    }
    more = [fixed_key(number) for number in (2, 3, 4)]
    signed = sign(frame, key)
    four = signed
    for other in more:
        four = add_signature(four, other)
    makers: dict[str, tuple[str, str, Frame]] = {
        "one key": (mine, "", signed),
        "many keys": (nodes + mine, "", signed),
        "many revoked": (mine, revoked, signed),
        "certificate": (
            f'*.shop.example.com,web* cert-authority,namespaces="deploykit" {AUTHORITY.public_openssh}\n',
            "",
            sign(frame, key.with_certificate(certificate)),
        ),
        "four signatures": (mine + "".join(f"ops {other.public_openssh}\n" for other in more), "", four),
    }
    for name, signer in signers.items():
        makers[name] = (f"web12345 {public_line(signer.public_blob)}\n", "", sign(frame, signer))
    cases = {}
    for name, (allowed, gone, made) in makers.items():
        place = root / name.replace(" ", "-")
        cases[name] = Case(trust=Trust.from_settings(_settings(place, allowed, gone), NodeName("desk")), frame=made)
        found = cases[name].check()
        assert getattr(found, "message", None) == report(), name
    return cases


def _settings(place: Path, allowed: str, revoked: str) -> TrustSettings:
    place.mkdir()
    files = {"allowed_signers": allowed, "revoked_keys": revoked}
    for name, text in files.items():
        (place / name).write_text(text)
        (place / name).chmod(0o644)
    os.utime(place / "allowed_signers", (1, 1))
    return TrustSettings(
        allowed_signers=place / "allowed_signers",
        revoked_keys=place / "revoked_keys",
        origins=("https://deploy.example.org",),
        rp_ids=("deploy.example.org",),
    )


def measure(calls: dict[str, Callable[[], object]], loops: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time all in turns; microseconds of CPU a call, and the median of the rounds' ratios to `bare`."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for number in range(rounds + 1):
        for name in order if number % 2 else reversed(order):
            call = calls[name]
            start = time.process_time()
            for _ in range(loops):
                call()
            if number:  # the first round warms all up
                times[name].append((time.process_time() - start) / loops * 1e6)
    return {
        name: {
            "us": round(statistics.median(found), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(found, times["bare"], strict=True)), 2),
        }
        for name, found in times.items()
    }


def load_times(keys: int, rounds: int = 7) -> dict[str, float]:
    """Return the seconds to load files of so many keys and revoked keys, and the bytes that one takes in memory."""
    text = "".join(node_lines(keys))
    revoked = "\n".join(line.split('"')[2].strip() for line in text.splitlines())
    times: dict[str, list[float]] = {"allowed": [], "revoked": []}
    for _ in range(rounds):
        for name, allowed, gone in (("allowed", text, ""), ("revoked", "", revoked)):
            gc.collect()
            start = time.process_time()
            AllowedSigners.parse(allowed, revoked=gone)
            times[name].append(time.process_time() - start)
    gc.collect()
    tracemalloc.start()
    kept = AllowedSigners.parse(text)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept.signers) == keys
    return {
        "allowed_seconds": round(statistics.median(times["allowed"]), 3),
        "revoked_seconds": round(statistics.median(times["revoked"]), 3),
        "bytes_per_key": round(size / keys),
    }


def run(rounds: int, loops: int, keys: int) -> dict[str, object]:
    """Measure everything; the result is what `--json` prints."""
    loads = load_times(keys)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with tempfile.TemporaryDirectory() as root:
        cases = make_cases(Path(root), keys)
        time.sleep(2.1)  # so that the files' time stamps are old enough to tell of every change
        frame = cases["one key"].frame
        signed = signed_bytes(frame.body)
        public, signature = key.public_key(), key.sign(signed)
        calls: dict[str, Callable[[], object]] = {
            "bare": lambda: public.verify(signature, signed),
            "decode alone": lambda: decode(frame.headers, frame.body),
        }
        calls |= {name: case.check for name, case in cases.items()}
        gc.collect()
        gc.freeze()  # a daemon's garbage collector looks at new objects, too, not at 50,000 old ones each time
        measured = measure(calls, loops, rounds)
        gc.unfreeze()
    for name, limit in LIMITS.items():
        measured[name]["limit"] = limit
    return {
        "python": platform.python_version(),
        "rounds": rounds,
        "keys": keys,
        "body_bytes": len(frame.body),
        "load": loads | {"limit": LOAD_LIMIT},
        "cases": measured,
        "held": all(measured[name]["ratio"] <= limit for name, limit in LIMITS.items())
        and max(loads["allowed_seconds"], loads["revoked_seconds"]) <= LOAD_LIMIT,
    }


def main() -> int:
    """Print the figures; return 1 where a limit was missed and `--check` asks for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--loops", type=int, default=LOOPS)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="fail above a limit")
    options = parser.parse_args()
    result = run(options.rounds, options.loops, options.keys)
    if options.json:
        print(json.dumps(result))
    else:
        _show(result)
    return 0 if result["held"] or not options.check else 1


def _show(result: dict[str, object]) -> None:
    loads, cases = result["load"], result["cases"]
    assert isinstance(loads, dict)
    assert isinstance(cases, dict)
    print(
        f"Python {result['python']}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; a body of "
        f"{result['body_bytes']} bytes, medians of {result['rounds']} rounds"
    )
    for name, found in cases.items():
        limit = f", limit {found['limit']} x" if "limit" in found else ""
        print(f"{name + ':':17} {found['us']:7.1f} us, {found['ratio']:5.2f} x bare{limit}")
    print(
        f"{result['keys']} keys: loaded in {loads['allowed_seconds']} s, as revoked ones in {loads['revoked_seconds']} "
        f"s (limit {loads['limit']} s); {loads['bytes_per_key']} bytes of memory a key"
    )


if __name__ == "__main__":
    sys.exit(main())
