"""A stand-in for a Hugging Face hub on 127.0.0.1: what huggingface_hub asks for when it fetches files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of-the-test"  # noqa: S105 - of the stand-in


def commit(number: int) -> str:
    """The hash of a repository's n-th commit."""
    return hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """Files by commit and name. `large` files are stored elsewhere and come through a redirect."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    private: bool = False
    gated: bool = False
    large: tuple[str, ...] = (".onnx", ".pth")


@dataclass
class Hub:
    """The repositories, and every request as (method, path, authorization)."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    corrupt: bool = False  # sends other bytes of the same number
    status: int | None = None  # answered to everything


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def fail(self, status: int, code: str | None = None) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, *, head: bool) -> None:
            token = self.headers.get("Authorization")
            if self.path.startswith("/api/"):  # the library's own curiosity, not needed for files
                return self.fail(404)
            hub.requests.append((self.command, self.path, token))
            if hub.status:
                return self.fail(hub.status)
            owner, name, verb, *rest = self.path.strip("/").split("/")
            repository = hub.repositories.get(f"{owner}/{name}")
            if repository is None or verb not in ("resolve", "stored"):
                return self.fail(401 if token is None else 404, "RepoNotFound")
            if token not in (None, f"Bearer {TOKEN}"):
                return self.fail(401)
            if repository.private and token is None:
                return self.fail(401, "RepoNotFound")
            if repository.gated:
                return self.fail(403, "GatedRepo")
            revision, file = rest[0].replace("%2F", "/"), "/".join(rest[1:])
            sha = repository.refs.get(revision, revision)
            if sha not in repository.commits:
                return self.fail(404, "RevisionNotFound")
            content = repository.commits[sha].get(file)
            if content is None:
                return self.fail(404, "EntryNotFound")
            self.send(sha, file, content, repository, stored=verb == "stored", head=head)
            return None

        def send(
            self, sha: str, file: str, content: bytes, repository: Repository, *, stored: bool, head: bool
        ) -> None:
            large = file.endswith(repository.large)
            elsewhere = large and not stored
            self.send_response(302 if elsewhere else 200)
            self.send_header("X-Repo-Commit", sha)
            if large:
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
            else:
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
                self.send_header("ETag", f'"{blob.hexdigest()}"')
            if elsewhere:
                self.send_header("Location", f"{hub.url}{self.path.replace('/resolve/', '/stored/')}")
            body = b"" if elsewhere else bytes(255 - b for b in content) if hub.corrupt else content
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not head:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
