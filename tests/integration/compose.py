"""The containers as an operator has them: docker compose with the project's files, and a name of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND_TIMEOUT_S = 600
READY_TIMEOUT_S = 120
MAX_TILES = 77  # set as an operator would, to see that settings arrive
MAX_CONNECTIONS = 64  # of the gateway


def unavailable() -> str | None:
    """Why no container can be started here; None if an engine and Compose answer."""
    if shutil.which("docker") is None:
        return "no docker client on this machine"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command)}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    return None


def run(*command: str, check: bool = True, **environment: str) -> str:
    """A command's standard output; its standard error is in the message if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = READY_TIMEOUT_S) -> Any:
    """The first true value of a condition that is asked five times a second."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last: {value!r}"
        time.sleep(0.2)


class Stack:
    """One Compose project.

    Args:
        project: its name, apart from any other on this machine.
        files: of Compose, relative to the checkout.
        environment: what an .env would have.
    """

    def __init__(self, project: str, files: Sequence[str], **environment: str) -> None:
        self.project = project
        self.files = tuple(files)
        self.environment = environment

    def compose(self, *arguments: str, check: bool = True) -> str:
        """`docker compose ARGUMENTS`; its standard output."""
        files = [option for file in self.files for option in ("-f", file)]
        command = ["docker", "compose", "-p", self.project, *files, *arguments]
        return run(*command, check=check, DOCKER_BUILDKIT="1", **self.environment)

    def up(self, *services: str, **counts: int) -> None:
        """Starts services, with `counts` containers of some, and waits until all are healthy."""
        scale = [option for name, count in counts.items() for option in ("--scale", f"{name}={count}")]
        self.compose("up", "-d", "--no-build", *scale, *services)
        for service in services:
            self.wait_healthy(service, counts.get(service, 1))

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.service": service}
        filters = [option for k, v in labels.items() for option in ("--filter", f"label={k}={v}")]
        return run("docker", "ps", "-q", *filters).split()

    def container(self, service: str) -> str:
        """The id of a service's only running container."""
        (only,) = self.containers(service)
        return only

    def wait_healthy(self, service: str, count: int = 1) -> list[str]:
        """Ids of the service's containers, once `count` of them run and are healthy."""

        def healthy() -> list[str]:
            ids = self.containers(service)
            good = [i for i in ids if inspect(i)["State"]["Health"]["Status"] == "healthy"]
            return good if len(good) == count else []

        try:
            ids: list[str] = wait_until(healthy, f"{count} healthy {service}")
        except AssertionError as error:
            log = self.compose("logs", "--no-color", "--tail", "40", service, check=False)
            raise AssertionError(f"{error}\n{log}") from None
        return ids

    def address(self, container: str) -> str:
        """A container's IP address in the default network, to reach it past any published port."""
        networks = inspect(container)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_default"]["IPAddress"])

    def redis(self, *command: str) -> str:
        """redis-cli in the Redis container."""
        return run("docker", "exec", self.container("redis"), "redis-cli", *command).strip()


def inspect(name: str) -> dict[str, Any]:
    """What the engine says about a container or an image."""
    (found,) = json.loads(run("docker", "inspect", name))
    return dict(found)


@contextmanager
def timed(figures: list[str], what: str) -> Iterator[None]:
    """Notes how long a step took."""
    began = time.monotonic()
    yield
    figures.append(f"{what}: {time.monotonic() - began:.1f} s")


def scaled(stack: Stack) -> Stack:
    """The same project with replicas behind the gateway."""
    return Stack(stack.project, [*stack.files, "docker/compose.scale.yml"], **stack.environment)
