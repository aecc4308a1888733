"""The pages of real daemons: through a broker that goes and comes, HUP, and deploys."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent.agent import Agent
from deploykit.daemons.service.metrics import Metrics
from deploykit.outbox import Outbox
from deploykit.wire import Frame
from tests.support.daemon import RunningDaemon
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.wait import wait_until


def get(port: int, page: str) -> tuple[int, str]:
    """Ask for a page; return status and text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def values(text: str) -> dict[str, float]:
    """The series without labels."""
    return {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples if not s.labels}


def pages_at(port: int) -> str:
    return f'[service]\nlisten = "127.0.0.1:{port}"\n'


def test_a_relay_shows_how_it_goes_over_a_broker_that_restarts_and_over_hup(tmp_path: Path) -> None:
    port = free_port()
    with EmbeddedBroker() as broker:
        daemon = RunningDaemon(tmp_path, broker.address, "relay")
        daemon.write(broker.address, pages_at(port))
        with daemon:
            daemon.wait("ready: relay")
            wait_until(lambda: get(port, "/ready") == (200, "ready\n"))
            assert get(port, "/live") == (200, "alive\n")
            broker.stop()
            wait_until(lambda: get(port, "/ready") == (503, "waiting for a broker\n"))
            assert get(port, "/live") == (200, "alive\n")
            Outbox(tmp_path / "spool").put("/topic/x", Frame({}, b"x"))
            wait_until(lambda: values(get(port, "/metrics")[1]).get("deploykit_outbox_records") == 1)
            found = values(get(port, "/metrics")[1])
            assert found["deploykit_bus_connected"] == 0
            assert found["deploykit_outbox_oldest_timestamp_seconds"] > 1e9
            broker.start()
            wait_until(lambda: get(port, "/ready")[0] == 200)
            wait_until(lambda: values(get(port, "/metrics")[1])["deploykit_outbox_records"] == 0)
            found = values(get(port, "/metrics")[1])
            assert (found["deploykit_bus_connected"], found["deploykit_bus_reconnects_total"]) == (1, 1)
            # HUP: the counters go on, and so do the pages.
            daemon.hup()
            daemon.wait("settings read again")
            wait_until(lambda: get(port, "/ready")[0] == 200)
            assert values(get(port, "/metrics")[1])["deploykit_bus_reconnects_total"] == 1


def test_an_address_in_use_ends_the_start_and_at_hup_the_old_one_stays(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    port = free_port()
    daemon = RunningDaemon(tmp_path, deploykit_broker.address, "relay")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        daemon.write(deploykit_broker.address, pages_at(taken))
        with daemon:
            assert daemon.process.wait(60) == 2
        (line,) = daemon.log.read_text().splitlines()
        assert line.startswith(f"deploykit: [service] listen: port {taken} on 127.0.0.1 is in use")
        daemon.write(deploykit_broker.address, pages_at(port))
        with daemon:
            daemon.wait("ready: relay")
            daemon.write(deploykit_broker.address, pages_at(taken) + "[log]\nlevel = 'debug'\n")
            daemon.hup()
            daemon.wait(f"the old ones stay: [service] listen: port {taken}")
            wait_until(lambda: get(port, "/ready") == (200, "ready\n"))


def test_an_agent_counts_its_deploys_fetches_and_messages(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    metrics = Metrics()
    with Node(tmp_path, deploykit_broker) as node, Agent(node.settings, metrics=metrics) as agent:
        assert agent.wait_connected(60)
        assert metrics.series("release_info") == {}
        for tag in ("v1", "v2"):
            request = node.request(tag, node.origin.push(tag=tag))
            node.send(request)
            assert node.report_on(request).outcome == "success"
        node.send(node.request("v2", request.commit), key="stranger")
        wait_until(lambda: metrics.series("messages_total").get(("deploykit.deploy.requested.v1", "ack")) == 3)
        assert metrics.series("deploys_total")["shop", "deploy", "success"] == 2
        fetches = metrics.series("mirror_fetches_total")
        assert fetches["shop", "updated"] != 0
        assert fetches["shop", "failed"] == 0
        assert list(metrics.series("deploy_duration_seconds")) == [("shop", "deploy")]
        assert metrics.series("bus_connected") == {(): 1}
        assert [site for site, release in metrics.series("release_info") if "v2" in release] == ["shop"]
        text = metrics.exposition()
        assert text is not None
        assert b'deploykit_deploys_total{outcome="failure",phase="deploy",site="shop"} 0.0' in text
    assert metrics.series("bus_connected") == {}
    assert metrics.series("outbox_records") == {}
