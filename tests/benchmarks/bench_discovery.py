"""Finding nodes on a real RabbitMQ that this script starts and ends.

`python tests/benchmarks/bench_discovery.py [--nodes N] [--rounds N]`

The nodes are simulated in a process of their own, with a connection, a key and real signatures each; half of them
answer twice. With a list, discovery is over when the last node has answered; without, half a second after that.
CPU is this process's alone: signing the question, and verifying and reading each answer.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from pathlib import Path

from deploykit.bus import Bus
from deploykit.fleet.discovery import discover
from deploykit.messages import NodeQueried
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.settings import BusSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import SigningKey
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.simfleet.model import draw_faults
from tests.support.simfleet.process import Fleet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {options.nodes} nodes, {options.rounds} rounds")
    operator = SigningKey.generate()
    faults = draw_faults(options.nodes, silent=0.0, failing=0.0, slowest=0.0, seed=1)
    with RabbitMQ() as broker:
        began = time.perf_counter()
        with (
            Fleet(
                broker.port,
                broker.login,
                broker.passcode,
                faults=faults,
                operator=operator.public_openssh,
                top=Path(__file__).parents[2],
            ) as fleet,
            Bus(BusSettings(address=broker.address)) as bus,
        ):
            assert bus.wait_connected(60)
            print(f"all subscribed after {time.perf_counter() - began:.1f} s")
            signers = AllowedSigners.parse(fleet.allowed_signers)
            trust = Trust.from_settings(TrustSettings(), NodeName("desk"), trusted=lambda: signers)
            for title, expected in (("with a list", frozenset(fleet.nodes)), ("without", None)):
                seconds, cpu, least = [], [], options.nodes
                for _ in range(options.rounds):
                    start, used = time.perf_counter(), time.process_time()
                    found = discover(bus, TopicMap(), operator, trust, NodeQueried(), expected=expected)
                    seconds.append(time.perf_counter() - start)
                    cpu.append(time.process_time() - used)
                    least = min(least, len(found.nodes))  # a busy machine may pause the nodes for half a second
                print(
                    f"{title}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
                    f"CPU {statistics.median(cpu):.2f} s, at least {least} nodes found"
                )
            print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
