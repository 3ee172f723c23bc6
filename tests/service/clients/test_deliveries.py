"""Landsat deliveries, one file for each band, from the client and the command line to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model import bundle as bundles
from model import bundle_writer
from model.probe import LinearProbe, encode
from service.client import AsyncClient, Client
from service.rasters import delivery
from tests.rasters import dn_pixels
from tests.service import deliveries
from tests.service.server_process import ServerProcess, run

pytestmark = [pytest.mark.server, pytest.mark.slow]
FRESH = {"Cache-Control": "no-cache"}
LABELS = ("water", "forest", "town")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's own encoder with two made-up probes."""
    own = bundles.load()
    rng = np.random.default_rng(3)
    probes = {
        "cover": LinearProbe(
            "multi-class",
            "mean",
            LABELS,
            rng.normal(0, 1, (3, own.config.embed_dim)).astype(np.float32),
            np.zeros(3, np.float32),
        ),
        "signs": LinearProbe(
            "multi-label",
            "cls",
            LABELS,
            rng.normal(0, 1, (3, own.config.embed_dim)).astype(np.float32),
            np.zeros(3, np.float32),
            threshold=0.5,
        ),
    }
    folder = tmp_path_factory.mktemp("bundles") / "probed"
    bundle_writer.write(
        folder,
        name="probed",
        version="1",
        trained=own.trained,
        config=own.config,
        preprocessing=own.preprocessing,
        training={},
        metrics={},
        parity={},
        card="Made by a test.",
        files={
            "encoder.fp32.onnx": own.encoder_path("fp32").read_bytes(),
            **{f"probes/{name}.safetensors": encode(probe) for name, probe in probes.items()},
        },
    )
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--bundle", str(bundle)) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = deliveries.parts(dn_pixels(seed=4), metadata=deliveries.mtl())
    return deliveries.write(tmp_path_factory.mktemp("products") / deliveries.PRODUCT, files)


@pytest.fixture(scope="module")
def stacked(product: Path) -> Path:
    """The same as one file, which does not hold the acquisition time as a request's does."""
    path = product.parent / "stacked.tif"
    delivery.stack(product, path)
    return path


@pytest.fixture(scope="module")
def expected(server: ServerProcess, stacked: Path) -> np.ndarray:
    """The stacked file's embedding."""
    with Client(server.url, headers=FRESH) as client:
        answer = client.embed([stacked], datetime=deliveries.ACQUIRED)
    assert answer.failures == []
    return answer.array()


def test_the_client_sends_the_folder(server: ServerProcess, product: Path, expected: np.ndarray) -> None:
    with Client(server.url, headers=FRESH) as client:
        answer = client.embed([product, product])
    assert [item.fields["metadata_source"]["datetime"] for item in answer.results] == ["file", "file"]
    assert answer.array().tobytes() == np.concatenate([expected, expected]).tobytes()


def test_so_does_the_asynchronous_one(server: ServerProcess, product: Path, expected: np.ndarray) -> None:
    async def scenario() -> np.ndarray:
        async with AsyncClient(server.url, headers=FRESH) as client:
            return (await client.embed(product)).array()

    assert asyncio.run(scenario()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("inside", [False, True], ids=["by the service", "in process"])
@pytest.mark.parametrize("given", ["folder", "folder of folders"])
def test_the_command_takes_the_folder(
    server: ServerProcess,
    bundle: Path,
    product: Path,
    expected: np.ndarray,
    inside: bool,
    given: str,
    tmp_path: Path,
) -> None:
    folder = product
    if given != "folder":
        folder = tmp_path / "products"
        folder.mkdir()
        (folder / product.name).symlink_to(product)
    output = tmp_path / "out.npy"
    where = ("--bundle", str(bundle)) if inside else ("--url", server.url)
    done = run("embed", str(folder), "-o", str(output), "--no-cache", *where)
    assert (done.returncode, done.stderr.strip()) == (0, f"landmoe: 1 tile; wrote {output}")
    assert np.load(output).tobytes() == expected.tobytes()


def test_a_folder_that_misses_a_band_says_which(server: ServerProcess, product: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for file in product.iterdir():
        if "SR_B5" not in file.name:
            (short / file.name).symlink_to(file)
    done = run("embed", str(short), "-o", str(tmp_path / "out.npy"), "--url", server.url)
    assert done.returncode == 1
    assert "SR_B5" in done.stderr
    assert not (tmp_path / "out.npy").exists()


def test_classify_with_each_probe_of_a_bundle(server: ServerProcess, product: Path, stacked: Path) -> None:
    with Client(server.url, headers=FRESH) as client:
        assert [probe["name"] for probe in client.model()["probes"]] == ["cover", "signs"]
        for name in ("cover", "signs"):
            answer = client.classify([product], probe=name)
            again = client.classify([stacked], probe=name, datetime=deliveries.ACQUIRED)
            [item], [other] = answer.results, again.results
            assert item.predictions == other.predictions
            assert {prediction.label for prediction in item.predictions} == set(LABELS)
            probabilities = [prediction.probability for prediction in item.predictions]
            assert probabilities == sorted(probabilities, reverse=True)
            if name == "cover":
                assert sum(probabilities) == pytest.approx(1, abs=1e-5)
            else:
                assert item.selected == [p.label for p in item.predictions if p.probability >= 0.5]
        [best] = client.classify([product], probe="cover", top_k=1).results
        assert len(best.predictions) == 1


def test_classify_s_probabilities_are_the_probe_s(
    server: ServerProcess, bundle: Path, product: Path, expected: np.ndarray
) -> None:
    probe = bundles.load(bundle).probe("cover")
    with Client(server.url, headers=FRESH) as client:
        [item] = client.classify([product], probe="cover").results
    told = {prediction.label: prediction.probability for prediction in item.predictions}
    logits = probe.weights @ expected[0] + probe.bias
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose([told[label] for label in LABELS], shares, atol=1e-5)
