"""Bundles and checkpoints from a hub, asked for as a user does: in a process set by its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from model import bundle
from model.bundle import BundleError
from model.config import SIZES, Preprocessing
from model.hub import Address, HubError, fetch_bundle, fetch_file, is_address, parse
from model.probe import LinearProbe, encode
from tests.model.hub_server import TOKEN, Hub, Repository, commit, running

GOLDEN = Path(__file__).parents[1] / "golden" / "reference_tiny.pth"
PROGRAM = """
import sys, time
time.sleep = lambda seconds: None  # huggingface_hub waits 20 s in all before it gives up on a network
from model.bundle import BundleError, load
for source in sys.argv[1:]:
    try:
        found = load(source)
        print(found.name, found.version, found.path)
    except BundleError as error:
        print("error:", error)
print("torch" in sys.modules, file=sys.stderr)
"""


@dataclass
class User:
    """Somebody's machine: a cache of its own and an environment."""

    hub: Hub
    home: Path

    def run(
        self, *command: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE", "XDG_"))}
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, *command],
            env=clean | settings | variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def load(self, *sources: str, **variables: str) -> list[str]:
        """One line for each source: name, version and path, or the error."""
        done = self.run("-c", PROGRAM, *sources, **variables)
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("False\n"), "torch was imported"
        lines = done.stdout.splitlines()
        assert len(lines) == len(sources), done.stdout
        return lines


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with running() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub) -> Hub:
    server.repositories.clear()
    server.requests.clear()
    server.corrupt, server.status = False, None
    return server


@pytest.fixture
def user(hub: Hub, tmp_path: Path) -> User:
    return User(hub, tmp_path / "home")


PROBE = encode(
    LinearProbe(
        task="multi-label",
        pooling="mean",
        labels=("water",),
        weights=np.zeros((1, SIZES["XXS"].embed_dim), np.float32),
        bias=np.zeros(1, np.float32),
    )
)


def files(folder: Path, version: str = "1") -> dict[str, bytes]:
    """A bundle as a repository holds it, with the hub's own files beside it."""
    bundle.write(
        folder, name="test", version=version, trained=False, config=SIZES["XXS"],
        preprocessing=Preprocessing(), training={}, metrics={}, parity={}, card="card",
        files={"encoder.fp32.onnx": b"onnx" + version.encode(), "probes/a.safetensors": PROBE},
    )  # fmt: skip
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return found | {"README.md": b"# A page", ".gitattributes": b"", "training.log": b"x", "run.sh": b"x"}


@pytest.fixture
def repository(hub: Hub, tmp_path: Path) -> Repository:
    made = Repository(
        {commit(1): files(tmp_path / "one", "1"), commit(2): files(tmp_path / "two", "2")},
        {"main": commit(1), "v2": commit(2), "refs/pr/1": commit(2)},
    )
    hub.repositories["owner/name"] = made
    return made


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://owner/name", Address("owner/name", None, None)),
        ("hf:/owner/name", Address("owner/name", None, None)),
        ("hf://owner/name@v1.0", Address("owner/name", None, "v1.0")),
        ("hf://owner/name@refs/pr/1", Address("owner/name", None, "refs/pr/1")),
        ("hf://o-1/n.a_me/a/b.pth@main", Address("o-1/n.a_me", "a/b.pth", "main")),
    ],
)
def test_addresses(source: str, expected: Address) -> None:
    assert parse(source) == expected
    assert parse(Path(source)) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://owner", "hf://owner/", "hf://owner/na me", "hf://owner/name@", "hf://owner/../etc/passwd",
     "hf://owner/name/../../x", "hf://owner/name/a@..", "hf://owner/name@a@b", "hf://ownér/name",
     "hf://" + "o" * 100 + "/name", "hf://owner/name\n"],
)  # fmt: skip
def test_what_is_no_address(source: str) -> None:
    assert is_address(source)
    with pytest.raises(HubError, match=r"expected hf://owner/name\[/file\]\[@revision\]"):
        parse(source)
    with pytest.raises(BundleError, match="is no address"):
        bundle.load(source)


def test_paths_are_no_addresses() -> None:
    assert not is_address(None)
    assert not is_address("some/folder")
    assert not is_address(Path("/hf"))


def test_a_file_is_no_bundle_and_a_repository_no_file() -> None:
    with pytest.raises(HubError, match="names a file"):
        fetch_bundle("hf://owner/name/file.pth")
    with pytest.raises(HubError, match="names no file"):
        fetch_file("hf://owner/name")


def test_fetches_the_bundle_and_nothing_else(user: User, repository: Repository) -> None:
    (line,) = user.load("hf://owner/name")
    name, version, path = line.split()
    assert (name, version) == ("test", "1")
    assert Path(path).name == commit(1)
    fetched = {p.relative_to(path).as_posix() for p in Path(path).rglob("*") if not p.is_dir()}
    assert fetched == {"bundle.json", "card.md", "encoder.fp32.onnx", "probes/a.safetensors"}
    asked = {p.rpartition(f"{commit(1)}/")[2] for _, p, _ in user.hub.requests}
    assert not any("README" in p or "log" in p for p in asked)
    assert {token for _, _, token in user.hub.requests} == {None}


def test_revisions_and_the_cache(user: User, repository: Repository) -> None:
    lines = user.load("hf://owner/name@v2", "hf://owner/name@refs/pr/1", f"hf://owner/name@{commit(1)}")
    assert [line.split()[1] for line in lines] == ["2", "2", "1"]
    user.hub.requests.clear()
    (line,) = user.load(f"hf://owner/name@{commit(1)}")
    assert line.split()[1] == "1"
    assert user.hub.requests == []  # a commit never changes, so nobody has to be asked
    user.load("hf://owner/name@v2")
    assert {method for method, _, _ in user.hub.requests} == {"HEAD"}
    # A branch that moves is followed, and a bundle is never mixed from two commits.
    user.load("hf://owner/name")
    repository.refs["main"] = commit(2)
    (line,) = user.load("hf://owner/name")
    assert line.split()[1] == "2"
    assert Path(line.split()[2]).name == commit(2)


def test_offline(user: User, repository: Repository) -> None:
    user.load("hf://owner/name")
    user.hub.requests.clear()
    lines = user.load("hf://owner/name", "hf://owner/name@v2", HF_HUB_OFFLINE="1")
    assert lines[0].split()[:2] == ["test", "1"]
    assert lines[1].startswith("error: hf://owner/name@v2: bundle.json is not in the cache ")
    assert "HF_HUB_OFFLINE forbids" in lines[1]
    assert user.hub.requests == []


def test_no_network(user: User, repository: Repository) -> None:
    user.load("hf://owner/name")
    nowhere = "http://127.0.0.1:9"
    lines = user.load("hf://owner/name", "hf://owner/other", HF_ENDPOINT=nowhere)
    assert lines[0].split()[:2] == ["test", "1"]
    assert f"{nowhere} gave no answer" in lines[1]
    assert "refused" in lines[1]


def test_a_cache_filled_by_another_tool_is_used_offline(user: User, repository: Repository) -> None:
    """`hf download owner/name` fetches all that the repository holds."""
    names = list(repository.commits[commit(1)])
    done = user.run(
        "-c", f"import huggingface_hub as h\nfor f in {names!r}: h.hf_hub_download('owner/name', f)"
    )
    assert done.returncode == 0, done.stderr
    (line,) = user.load("hf://owner/name", HF_HUB_OFFLINE="1")
    assert line.split()[:2] == ["test", "1"]
    assert (Path(line.split()[2]) / "training.log").exists()


def test_the_token_is_sent(user: User, repository: Repository) -> None:
    repository.private = True
    (line,) = user.load("hf://owner/name")
    assert "has no such repository, or a private one: check the name or HF_TOKEN" in line
    (line,) = user.load("hf://owner/name", HF_TOKEN=TOKEN)
    assert line.split()[:2] == ["test", "1"]
    assert f"Bearer {TOKEN}" in {token for _, _, token in user.hub.requests}


def test_refusals_are_one_line(user: User, repository: Repository, hub: Hub) -> None:
    lines = user.load("hf://owner/none", "hf://owner/name@v9", "hf://owner/name@" + commit(9))
    assert lines == [
        f"error: hf://owner/none: {hub.url} has no such repository, or a private one: "
        "check the name or HF_TOKEN",
        "error: hf://owner/name@v9: it has no revision v9",
        f"error: hf://owner/name@{commit(9)}: it has no revision {commit(9)}",
    ]
    (line,) = user.load("hf://owner/name", HF_TOKEN=f"not-{TOKEN}")
    assert line.endswith("refuses access (401); check HF_TOKEN and what it may read")
    (line,) = user.load("hf://owner/none", HF_TOKEN=TOKEN)
    assert "no such repository" in line
    repository.gated = True
    (line,) = user.load("hf://owner/name")
    assert "accept it on its page and set HF_TOKEN" in line
    hub.status = 403
    (line,) = user.load("hf://owner/name")
    assert "gave no answer" in line
    assert "403" in line
    hub.status = 503
    (line,) = user.load("hf://owner/name")
    assert "gave no answer" in line
    assert "503" in line


def test_a_repository_without_a_bundle(user: User, repository: Repository) -> None:
    del repository.commits[commit(1)]["bundle.json"]
    del repository.commits[commit(2)]["card.md"]
    lines = user.load("hf://owner/name", "hf://owner/name@v2")
    assert lines == [
        "error: hf://owner/name: it has no file bundle.json",
        f"error: hf://owner/name@v2: it has no file card.md in revision {commit(2)}",
    ]
    user.hub.requests.clear()
    repository.commits[commit(1)]["bundle.json"] = b'{"files": {"../../x": ""}}'
    repository.commits[commit(2)]["bundle.json"] = bytes(5 << 20)
    lines = user.load("hf://owner/name", "hf://owner/name@v2")
    assert "is not a bundle: its format is None" in lines[0]
    assert "bundle.json has 5242880 bytes; expected at most 4194304" in lines[1]
    assert ("GET", "/owner/name/resolve/v2/bundle.json", None) not in user.hub.requests


def test_bytes_that_are_not_those_of_the_hub(user: User, repository: Repository, hub: Hub) -> None:
    hub.corrupt = True
    (line,) = user.load("hf://owner/name")
    assert "bundle.json is damaged: its checksum is" in line
    assert "remove " in line
    hub.corrupt = False
    (again,) = user.load("hf://owner/name")
    assert again == line  # the cache still holds them; what the message says to do helps
    blob = Path(line.partition("; remove ")[2].removesuffix(" and try again"))
    blob.unlink()
    (line,) = user.load("hf://owner/name")
    assert line.split()[:2] == ["test", "1"]
    # Damage on disk is seen too, and so are files that the hub has but the manifest does not mean.
    encoder = Path(line.split()[2]) / "encoder.fp32.onnx"
    encoder.write_bytes(b"onnx9")
    (line,) = user.load("hf://owner/name", HF_HUB_OFFLINE="1")
    assert "encoder.fp32.onnx is damaged" in line
    repository.commits[commit(2)]["encoder.fp32.onnx"] = b"another"
    (line,) = user.load("hf://owner/name@v2")
    assert "encoder.fp32.onnx is damaged: its SHA-256 is" in line


def test_info_of_a_bundle(user: User, repository: Repository) -> None:
    done = user.run("-c", "from service.cli import main; main()", "info", "--json", "hf://owner/name@v2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "2"


def test_a_published_checkpoint_becomes_ours(user: User, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["owner/weights"] = Repository(
        {commit(1): {"best.pth": GOLDEN.read_bytes()}}, {"main": commit(1)}
    )
    program = (
        "from typer.testing import CliRunner; from training.cli import app\n"
        "for file in ('best.pth', 'x.pth'):\n"
        "    given = ['import-reference', f'hf://owner/weights/{file}', '-o', 'out.safetensors']\n"
        f"    given += ['--published', '--config', {str(GOLDEN.with_suffix('.json'))!r}]\n"
        "    done = CliRunner().invoke(app, given)\n"
        "    print(done.exit_code, done.output, end='')\n"
    )
    done = user.run("-c", program, cwd=tmp_path)
    first, second = done.stdout.splitlines()
    assert first.startswith("0 out.safetensors: ")
    assert (tmp_path / "out.safetensors").stat().st_size > 1000
    assert second == "1 error: hf://owner/weights/x.pth: it has no file x.pth"
