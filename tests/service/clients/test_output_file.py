"""The file that a command writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.clients import output_file
from service.clients.errors import InputError
from tests.rasters import dn_pixels, geotiff


def write(content: Any, output: Path) -> None:
    with output_file.written(output) as file:
        file.write(content)


def test_an_existing_output_is_kept_when_nothing_came(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    write(b"before", output)
    with pytest.raises(TypeError):
        write("text", output)
    assert output.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [output]


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write(b"after", link)
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    output_file.check(tmp_path / "out.json", "json")
    with pytest.raises(InputError, match="is a folder"):
        output_file.check(tmp_path, "json")
    with pytest.raises(InputError, match="there is no folder"):
        output_file.check(tmp_path / "none" / "out.json", "json")


def test_a_link_is_as_good_as_where_it_leads(tmp_path: Path) -> None:
    astray, loop = tmp_path / "astray.json", tmp_path / "loop.json"
    astray.symlink_to(tmp_path / "none" / "out.json")
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="there is no folder"):
        output_file.check(astray, "json")
    if sys.version_info < (3, 13):
        with pytest.raises(InputError, match="leads back to itself"):
            output_file.check(loop, "json")


def test_a_full_disk_names_the_file_that_was_asked_for() -> None:
    with pytest.raises(InputError, match="/dev/full cannot be written: No space left on device"):
        write(b"x" * 100_000, Path("/dev/full"))


def test_json_on_standard_output_ends_its_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write(b'{"data":[]}', Path("-"))
    write(b"\x93NUMPY", Path("-"))
    assert capfdbinary.readouterr().out == b'{"data":[]}\n\x93NUMPY'


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    """As `landmoe classify scene.tif --fit grid -o scene.tif` did."""
    scene, link = tmp_path / "scene.tif", tmp_path / "link.tif"
    scene.write_bytes(geotiff(dn_pixels(80, 80)))
    link.symlink_to(scene)
    for output in (scene, link):
        done = CliRunner().invoke(app, ["classify", str(scene), "--fit", "grid", "-o", str(output)])
        assert done.exit_code == 1
        assert f"{output} is a file to read" in done.stderr
    assert scene.read_bytes() == geotiff(dn_pixels(80, 80))
    output_file.check_apart(tmp_path / "out.tif", [scene, "https://x.org/out.tif", None, tmp_path / "none"])
