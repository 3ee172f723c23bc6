"""/model, /livez, /readyz, /metrics, /openapi.json and the documentation's own files."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from shapely.geometry import shape
from starlette.testclient import TestClient

from model import bands, bundle
from service.errors import PROBLEMS
from service.http.openapi import document
from service.stac_item import stac_item
from service.system_schemas import ModelInfo
from service.telemetry import metrics
from tests.rasters import geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import BUNDLE, FakeEngine, M

TIFF = {"Content-Type": "image/tiff"}


def test_model_says_what_is_served_and_what_is_allowed(make_client: MakeClient) -> None:
    body = make_client(max_tiles=5).get("/model").json()
    ModelInfo.model_validate(body)
    assert body["name"] == BUNDLE.name
    assert body["digest"] == BUNDLE.digest
    assert body["trained"] is True
    assert body["bands"] == list(bands.BANDS)
    assert body["poolings"] == {"mean": M, "cls": M, "patch_mean": M, "patch_mean_std": 2 * M, "tokens": M}
    assert body["statistics"]["mean"] == list(bands.MEAN)
    assert body["limits"]["max_tiles"] == 5
    assert body["card"].startswith("# Fake")


def test_model_as_a_stac_item(make_client: MakeClient) -> None:
    answer = make_client().get("/model", params={"format": "stac"})
    assert answer.headers["content-type"] == "application/geo+json"
    item = answer.json()
    assert (item["type"], item["stac_version"]) == ("Feature", "1.1.0")
    shape(item["geometry"])
    found = item["properties"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]", found["mlm:name"])
    assert [band["name"] for band in found["bands"]] == found["mlm:input"][0]["bands"] == list(bands.BANDS)
    assert found["mlm:input"][0]["input"]["shape"] == [-1, 7, 40, 40]
    outputs = {output["name"]: output for output in found["mlm:output"]}
    assert outputs["mean"]["result"]["shape"] == [-1, M]
    assert outputs["patch_mean_std"]["result"]["shape"] == [-1, 2 * M]
    assert any("mlm:model" in asset["roles"] for asset in item["assets"].values())
    assert item["assets"]["embed"]["href"] == "http://testserver/embed"


def test_probes_are_outputs_of_the_stac_item() -> None:
    loaded = bundle.load()
    probe = {"name": "p", "task": "multi-class", "pooling": "mean", "labels": ["Sea or lake", "Forest"]}
    item = stac_item(loaded, "fp32", [probe], "http://x/")
    output = item["properties"]["mlm:output"][-1]
    assert (output["name"], output["result"]["shape"]) == ("p", [-1, 2])
    assert [(c["value"], c["name"], c["title"]) for c in output["classification:classes"]] == [
        (0, "Sea-or-lake", "Sea or lake"),
        (1, "Forest", "Forest"),
    ]
    assert item["assets"].keys() == {"embed", "classify"}
    assert loaded.name in item["properties"]["title"]


def test_another_form_of_model_is_refused(client: TestClient) -> None:
    answer = client.get("/model", params={"format": "xml"})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":bad-parameter")
    assert answer.json()["detail"].startswith("format is 'xml': ")


def test_live_and_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "queue_depth_tiles": 0,
        "redis": "off",
    }


def test_a_failing_engine_is_not_ready_until_it_gives_results_again(make_client: MakeClient) -> None:
    engine = FakeEngine(poison=0)
    restart = threading.Event()
    engine.restart_fault = restart.wait
    client = make_client(engine=engine)
    pixels_with_zero_in_the_corner = geotiff(_cornered())
    answers = []
    poisoned = threading.Thread(
        target=lambda: answers.append(
            client.post("/embed", content=pixels_with_zero_in_the_corner, headers=TIFF)
        )
    )
    poisoned.start()
    while (not_ready := client.get("/readyz")).status_code == 200:
        pass
    assert not_ready.status_code == 503
    assert "poisoned batch" in not_ready.json()["detail"]
    assert client.get("/livez").status_code == 200
    restart.set()
    poisoned.join()
    assert answers[0].status_code == 503
    assert client.post("/embed", content=geotiff(), headers=TIFF).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_metrics_count_requests_tiles_and_stages(client: TestClient) -> None:
    before = _samples(client)
    assert client.post("/embed", content=geotiff(), headers=TIFF).status_code == 200
    assert client.post("/embed", content=b"no", headers=TIFF).status_code == 415
    client.get("/a/path/that/is/not/there")
    after = _samples(client)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    assert grown("landmoe_requests_total", route="/embed", outcome="ok") == 1
    assert grown("landmoe_requests_total", route="/embed", outcome="not-a-tiff") == 1
    assert grown("landmoe_requests_total", route="unmatched", outcome="not-found") == 1
    assert grown("landmoe_tiles_total", outcome="ok") == 1
    assert grown("landmoe_tiles_total", outcome="not-a-tiff") == 1
    assert grown("landmoe_request_duration_seconds_count", route="/embed") == 2
    assert grown("landmoe_batch_size_tiles_count") == 1
    for stage in metrics.STAGES.keys() - {"fetch"}:
        assert grown("landmoe_stage_duration_seconds_count", stage=stage) >= 1
    assert after["landmoe_requests_in_flight", frozenset()] == 1  # the one that asks
    assert after["landmoe_queue_depth_tiles", frozenset()] == 0
    assert after["landmoe_ready", frozenset()] == 1


def test_metrics_have_one_prefix_and_name_the_model(client: TestClient) -> None:
    text = client.get("/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert all(name.startswith(("landmoe_", "python_")) for name in names)
    [model] = re.findall(r"^landmoe_model_info\{(.*)\} 1\.0$", text, re.MULTILINE)
    assert f'digest="{BUNDLE.digest}"' in model


def test_openapi_document_is_of_version_3_0(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.0.")
    assert schema == document(client.app)
    paths = {"/embed", "/classify", "/model", "/progress", "/livez", "/readyz", "/metrics"}
    assert schema["paths"].keys() == paths
    body = schema["paths"]["/embed"]["post"]["requestBody"]["content"]
    assert body.keys() == {"multipart/form-data", "image/tiff"}
    fields = body["multipart/form-data"]["schema"]["properties"]
    assert fields["tile"]["items"]["format"] == "binary"  # several: clients are generated from this
    assert fields["SR_B1"]["format"] == "binary"
    for name, most in (("lat", 90), ("lon", 180)):
        assert (fields[name]["minimum"], fields[name]["maximum"]) == (-most, most)
    for node in _nodes(schema):
        assert node.get("type") != "null"
        assert "const" not in node
    references = {node["$ref"] for node in _nodes(schema) if isinstance(node.get("$ref"), str)}
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"]


def test_openapi_document_says_what_can_go_wrong(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    answers = schema["paths"]["/embed"]["post"]["responses"]
    for code, row in PROBLEMS.items():
        if row.status not in (404, 405, 500):  # of no operation: paths, methods, defects
            assert f"`{code}`: {row.title}" in answers[str(row.status)]["description"]
    assert [status for status in answers if "Retry-After" in answers[status].get("headers", {})] == [
        "429",
        "503",
    ]
    assert {"200", "503"} <= schema["paths"]["/livez"]["get"]["responses"].keys()
    sent = [parameter["name"] for parameter in schema["paths"]["/embed"]["post"]["parameters"]]
    assert {"X-Request-ID", "X-Timeout-Ms"} <= set(sent)
    failed = client.post(
        "/embed", files=[("tile", ("a.tif", b"no")), ("tile", ("b.tif", b"nor this"))]
    ).json()
    shapes = schema["components"]["schemas"]
    assert failed.keys() == shapes["ProblemModel"]["properties"].keys()
    assert failed["errors"][1].keys() == shapes["ProblemOfTile"]["properties"].keys()


@pytest.mark.parametrize("name", ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"])
def test_the_documentation_comes_from_this_process(client: TestClient, name: str) -> None:
    page = client.get("/docs").text
    assert f"docs/assets/{name}" in page
    assert "//" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL).replace("</", "")
    assert client.get(f"/docs/assets/{name}").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/model", "/progress", "/livez", "/metrics"])
def test_another_method_is_told_which_there_are(client: TestClient, path: str) -> None:
    refused = client.delete(path)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.json()["detail"].endswith("expected GET or HEAD")
    assert client.head(path).status_code != 405
    assert client.put("/embed").json()["detail"].endswith("expected POST")


def test_the_bare_address_leads_to_the_documentation(client: TestClient) -> None:
    assert client.get("/").url.path == "/docs"


def _cornered() -> Any:
    from tests.rasters import dn_pixels

    pixels = dn_pixels()
    pixels[:, 0, 0] = 0
    return pixels


def _samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _nodes(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in _nodes(value))]
    return [found for item in node for found in _nodes(item)] if isinstance(node, list) else []


@pytest.mark.parametrize("path", ["/", "/docs", "/model", "/metrics", "/livez", "/readyz"])
def test_what_can_be_got_can_be_asked_for_its_head(client: TestClient, path: str) -> None:
    """RFC 9110, section 9.1."""
    head, whole = (client.request(method, path, follow_redirects=False) for method in ("HEAD", "GET"))
    assert head.status_code == whole.status_code
    assert head.headers["content-type" if path != "/" else "location"]
    assert not head.content
