"""Bundles and checkpoints from a hub, asked for as a user does: in a process set by its environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.hub_server import TOKEN, Hub, Repository, commit, running
from tests.model.hub_user import User, as_repository

GOLDEN = Path(__file__).parents[1] / "golden" / "reference_tiny.pth"


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


@pytest.fixture
def repository(hub: Hub, tmp_path: Path) -> Repository:
    made = Repository(
        {commit(1): as_repository(tmp_path / "one", "1"), commit(2): as_repository(tmp_path / "two", "2")},
        {"main": commit(1), "v2": commit(2), "refs/pr/1": commit(2)},
    )
    hub.repositories["owner/name"] = made
    return made


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
