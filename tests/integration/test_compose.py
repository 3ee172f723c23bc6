"""docker compose as shipped, on a real engine: from the build to the last container's end.

The tests of this file run in order, on the same containers: first one service with its published port, then
replicas behind the gateway. Grafana is left out here; its files are checked in tests/docker.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack

import httpx
import pytest

from model.native import session as native
from tests.integration.compose import (
    MAX_CONNECTIONS,
    MAX_TILES,
    Stack,
    inspect,
    run,
    scaled,
    timed,
    wait_until,
)
from tests.integration.load import NO_CACHE, Load
from tests.integration.own_bundle import LABELS, PROBE

pytestmark = [pytest.mark.docker, pytest.mark.slow]
TIFF = {"Content-Type": "image/tiff"}
PARAMETERS = {"datetime": "2023-06-15T10:30:00Z"}


def query(ports: dict[str, int], promql: str) -> list[tuple[dict[str, str], float]]:
    """What Prometheus answers to an instant query: labels and value of each series."""
    answer = httpx.get(f"http://127.0.0.1:{ports['prometheus']}/api/v1/query", params={"query": promql})
    answer.raise_for_status()
    return [(series["metric"], float(series["value"][1])) for series in answer.json()["data"]["result"]]


def scraped(ports: dict[str, int], job: str) -> dict[str, str]:
    """Health of each target that Prometheus has now, by instance.

    Not `up`: for five minutes that has what a Prometheus before this one saw last, of containers long gone.
    """
    answer = httpx.get(f"http://127.0.0.1:{ports['prometheus']}/api/v1/targets", params={"state": "active"})
    answer.raise_for_status()
    targets = [t for t in answer.json()["data"]["activeTargets"] if t["labels"]["job"] == job]
    return {target["labels"]["instance"]: target["health"] for target in targets}


def wait_scraped(ports: dict[str, int], job: str, count: int) -> set[str]:
    """Instances of the job, once they are as many as this and each was scraped."""
    seen: dict[str, str] = {}

    def all_up() -> bool:
        seen.clear()
        seen.update(scraped(ports, job))
        return list(seen.values()) == ["up"] * count

    try:
        wait_until(all_up, f"{count} of job {job} scraped", timeout_s=60)
    except AssertionError as error:
        raise AssertionError(f"{error}; Prometheus has {seen}") from error
    return set(seen)


def test_the_image_is_slim_and_unprivileged(stack: Stack, figures: list[str]) -> None:
    image = inspect("landmoe:test-cpu")
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "test"
    assert labels["org.opencontainers.image.revision"] == "0123abc"
    assert image["Config"]["User"] == "10001:10001"
    shell = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", "landmoe:test-cpu", "-c"]
    assert run(*shell, "command -v gcc cc make git curl || true") == ""
    found = run(*shell, "python -c 'import importlib.util as u; print(u.find_spec(\"torch\"))'")
    assert found.strip() == "None"
    megabytes = image["Size"] / 1e6
    own = megabytes - inspect("python:3.11-slim-bookworm")["Size"] / 1e6
    figures.append(f"cpu image: {megabytes:.0f} MB, {own:.0f} MB of it above its base")
    assert own < 560


def test_the_container_may_do_little(stack: Stack) -> None:
    container = inspect(stack.container("landmoe"))
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["Memory"] == 2 * 1024**3
    (binding,) = container["NetworkSettings"]["Ports"]["8000/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    spool = next(m for m in container["Mounts"] if m["Destination"] == "/var/spool/landmoe")
    assert spool["Type"] == "volume"
    redis = inspect(stack.container("redis"))
    assert not any(redis["NetworkSettings"]["Ports"].values())
    assert set(redis["NetworkSettings"]["Networks"]) == {f"{stack.project}_cache"}


def test_settings_arrive(client: httpx.Client) -> None:
    assert client.get("/model").json()["limits"]["max_tiles"] == MAX_TILES


@pytest.mark.skipif(native.unusable("fp32") is not None, reason=f"{native.unusable('fp32')}")
def test_the_image_has_the_kernels(client: httpx.Client) -> None:
    assert client.get("/model").json()["runtime"] == "kernels"


def test_a_tile_is_embedded_and_kept_in_redis(client: httpx.Client, stack: Stack, tiles: list[bytes]) -> None:
    first = client.post("/embed", content=tiles[0], headers=TIFF, params=PARAMETERS)
    assert first.status_code == 200, first.text
    assert first.headers["X-Cache"] == "miss"
    embedding = first.json()["data"][0]["embedding"]
    assert len(embedding) == first.json()["dim"]
    # Writing to Redis never delays the answer, so it may come after it.
    wait_until(lambda: int(stack.redis("DBSIZE")) > 0, "the result in Redis", timeout_s=30)
    second = client.post("/embed", content=tiles[0], headers=TIFF, params=PARAMETERS)
    assert second.headers["X-Cache"] == "hit"
    assert second.json()["data"][0]["embedding"] == embedding
    assert stack.redis("CONFIG", "GET", "maxmemory-policy").split() == ["maxmemory-policy", "allkeys-lru"]
    assert int(stack.redis("CONFIG", "GET", "maxmemory").split()[1]) == 256 * 1024**2
    assert stack.redis("CONFIG", "GET", "save") == "save"


def test_a_restarted_service_finds_its_results_in_redis(
    client: httpx.Client, stack: Stack, tiles: list[bytes], figures: list[str]
) -> None:
    with timed(figures, "restart of the service"):
        stack.compose("restart", "landmoe")
        stack.wait_healthy("landmoe")
    again = client.post("/embed", content=tiles[0], headers=TIFF, params=PARAMETERS)
    assert again.headers["X-Cache"] == "hit"


def test_a_tile_is_classified(client: httpx.Client, tiles: list[bytes]) -> None:
    """With the probe of the operator's own bundle."""
    assert PROBE in [probe["name"] for probe in client.get("/model").json()["probes"]]
    answer = client.post("/classify", content=tiles[1], headers=TIFF, params={"probe": PROBE})
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["data"][0]["predictions"]
    assert {p["label"] for p in predictions} == set(LABELS)
    assert sum(p["probability"] for p in predictions) == pytest.approx(1)


def test_prometheus_scrapes_and_counts(
    client: httpx.Client, ports: dict[str, int], tiles: list[bytes]
) -> None:
    # The test before restarts the service: a scrape that fell into that has failed, and is the last for 5 s.
    wait_scraped(ports, "landmoe", 1)
    counted = 'sum(landmoe_requests_total{route="/embed", outcome="ok"})'
    before = sum(value for _, value in query(ports, counted))
    for tile in tiles[:5]:
        assert client.post("/embed", content=tile, headers=NO_CACHE).status_code == 200

    def counted_all() -> bool:
        return sum(value for _, value in query(ports, counted)) >= before + 5

    wait_until(counted_all, "five more requests counted", timeout_s=30)
    rules = httpx.get(f"http://127.0.0.1:{ports['prometheus']}/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


def test_requests_go_on_while_redis_is_away(
    stack: Stack, ports: dict[str, int], tiles: list[bytes], figures: list[str]
) -> None:
    """Stopped and started again in the middle of load, with the cache in use: no request fails."""
    with Load(f"http://127.0.0.1:{ports['service']}", tiles, headers=TIFF) as load:
        wait_until(lambda: load.last_cache() == "hit", "hits in Redis")
        stack.compose("stop", "-t", "1", "redis")
        wait_until(lambda: load.last_cache() != "hit", "requests without Redis")
        load.wait_for_answers(40)
        began = time.monotonic()
        stack.compose("start", "redis")
        stack.wait_healthy("redis")
        wait_until(lambda: load.last_cache() == "hit", "hits in the new Redis", timeout_s=30)
        figures.append(f"Redis is used again {time.monotonic() - began:.1f} s after its start")
    slowest = max(outcome.ended - outcome.began for outcome in load.outcomes)
    figures.append(f"Redis stopped and started under load: {load.summary()}; slowest {slowest:.2f} s")
    assert not load.failures(), load.summary()
    assert all(outcome.sent for outcome in load.outcomes)
    assert slowest < 10


def test_stopping_the_container_loses_nothing(stack: Stack, tiles: list[bytes], figures: list[str]) -> None:
    """What was taken before SIGTERM is answered; what comes later finds nobody, or is told so."""
    container = stack.container("landmoe")
    # Past the published port: the engine's proxy there takes connections that nobody behind it takes.
    url = f"http://{stack.address(container)}:8000"
    stop = threading.Thread(target=run, args=("docker", "stop", "-t", "40", container))
    with Load(url, tiles, keep_alive=False) as load:
        load.wait_for_answers(30)
        began = time.monotonic()
        stop.start()
        stop.join()
        took = time.monotonic() - began
    figures.append(f"docker stop under load: {took:.1f} s; {load.summary()}")
    assert inspect(container)["State"]["ExitCode"] == 0
    assert took < 30
    lost = [outcome for outcome in load.failures() if outcome.status != 503]
    assert not lost, (load.summary(), lost[:3])


def test_two_replicas_behind_the_gateway(
    client: httpx.Client, stack: Stack, ports: dict[str, int], tiles: list[bytes], figures: list[str]
) -> None:
    both = scaled(stack)
    stack.compose("rm", "-sf", "landmoe")
    with timed(figures, "build the gateway"):
        both.compose("build", "gateway")
    with timed(figures, "up: two replicas and the gateway, all healthy"):
        both.up("redis", "replica", "gateway", "prometheus", replica=2)
    published = [c for name in ("replica", "gateway") for c in both.containers(name) if _published(c)]
    assert published == both.containers("gateway")
    replicas = wait_scraped(ports, "landmoe", 2)
    wait_scraped(ports, "gateway", 1)
    active = 'haproxy_backend_active_servers{job="gateway", proxy="replicas"}'  # an alert asks for it
    wait_until(lambda: [value for _, value in query(ports, active)] == [2], "two servers", timeout_s=30)
    wait_until(lambda: client.get("/readyz").status_code == 200, "an answer through the gateway")
    with Load(f"http://127.0.0.1:{ports['service']}", tiles) as load:
        load.wait_for_answers(60)
    assert not load.failures(), load.summary()
    served = 'landmoe_requests_total{job="landmoe", route="/embed", outcome="ok"} > 10'
    wait_until(
        lambda: replicas <= {labels["instance"] for labels, _ in query(ports, served)},
        "requests on both",
        timeout_s=30,
    )
    # One replica's numbers would mislead who reads them through the gateway.
    assert client.get("/metrics").status_code == 404
    assert client.get("/%6Detrics").status_code == 404


def test_a_gateway_whose_connections_are_all_taken_is_not_taken_for_dead(
    stack: Stack, ports: dict[str, int]
) -> None:
    """By clients that keep theirs, for example: its health check and Prometheus have a port of their own."""
    gateway = scaled(stack).container("gateway")
    ask = inspect(gateway)["Config"]["Healthcheck"]["Test"][1:]
    with ExitStack() as clients:
        for _ in range(MAX_CONNECTIONS + 8):
            one = clients.enter_context(socket.create_connection(("127.0.0.1", ports["service"])))
            one.sendall(b"GET /livez HTTP/1.1\r\n")
        time.sleep(1)
        run("docker", "exec", gateway, "timeout", "4", *ask, check=True)


def _published(container: str) -> bool:
    return any(inspect(container)["NetworkSettings"]["Ports"].values())


def test_a_killed_replica_costs_no_request(
    stack: Stack, ports: dict[str, int], tiles: list[bytes], figures: list[str]
) -> None:
    """Not even those that were under way in it: the gateway gives them to the other."""
    both = scaled(stack)
    victim = both.containers("replica")[0]
    with Load(f"http://127.0.0.1:{ports['service']}", tiles, clients=6) as load:
        load.wait_for_answers(40)
        run("docker", "kill", victim)
        load.wait_for_answers(80)
    slowest = max(outcome.ended - outcome.began for outcome in load.outcomes)
    figures.append(f"replica killed under load: {load.summary()}; slowest {slowest:.1f} s")
    assert not load.failures(), (load.summary(), load.failures()[:3])
    assert all(outcome.sent for outcome in load.outcomes)
    (left,) = both.containers("replica")
    assert left != victim
    wait_scraped(ports, "landmoe", 1)


def test_logs_are_json_lines(stack: Stack) -> None:
    log = run("docker", "logs", scaled(stack).containers("replica")[0], check=True)
    assert log == ""  # everything goes to standard error
    # `docker logs` writes the container's standard error to its own.
    both = run("sh", "-c", f"docker logs {scaled(stack).containers('replica')[0]} 2>&1")
    assert both
    for line in both.splitlines():
        assert re.match(r"\{.*\"event\".*\}$", line), line


def test_a_gateway_without_replicas_says_so_as_the_service_would(client: httpx.Client, stack: Stack) -> None:
    for replica in scaled(stack).containers("replica"):
        run("docker", "kill", replica)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["status"] == 503
