"""API keys, headers for browsers, CORS."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.http import api_keys
from service.http.api_keys import ApiKeyError, ApiKeys
from service.http.guard import API_KEY
from tests.rasters import geotiff
from tests.service.conftest import MakeClient

ONE, TWO = "first-key-0123456789", "second-key-0123456789"
TIFF = {"Content-Type": "image/tiff"}


@pytest.fixture
def guarded(make_client: MakeClient, tmp_path: Path) -> TestClient:
    file = tmp_path / "keys"
    file.write_text(f"# for the archive\n\n{TWO}  # rotated in May\n")
    return make_client(api_keys=f"{ONE}, ", api_keys_file=file)


@pytest.mark.parametrize("key", [ONE, TWO])
def test_every_key_lets_in(guarded: TestClient, key: str) -> None:
    assert guarded.get("/model", headers={"X-API-Key": key}).status_code == 200
    response = guarded.post("/embed", content=geotiff(), headers=TIFF | {"X-API-Key": key})
    assert response.status_code == 200


@pytest.mark.parametrize("key", [None, "", "x", ONE[:-1], ONE + "0", ONE.upper(), f"{ONE},{TWO}", "é" * 20])
@pytest.mark.parametrize("path", ["/model", "/embed", "/classify", "/nothing", "/docs/assets"])
def test_nothing_else_does(guarded: TestClient, key: str | None, path: str) -> None:
    headers = {} if key is None else {"X-API-Key": key.encode()}
    response = guarded.post(path, content=geotiff(), headers=TIFF | headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("ApiKey ")
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert not key or len(key) < 5 or key not in response.text


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css"]
)
def test_probes_metrics_and_documentation_are_open(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_may_ask_for_no_body(guarded: TestClient, path: str) -> None:
    assert (guarded.head(path).status_code, guarded.head(path).text) == (200, "")


def test_the_documentation_says_what_needs_a_key(guarded: TestClient, make_client: MakeClient) -> None:
    schema = guarded.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["ApiKey"]["name"] == API_KEY
    for path, operations in schema["paths"].items():
        [(method, operation)] = operations.items()
        refused = guarded.request(method, path).status_code == 401
        assert refused == (operation.get("security") == [{"ApiKey": []}])
        assert not refused or "401" in operation["responses"]
    assert "security" not in str(make_client().get("/openapi.json").json())


def test_refusals_are_counted(guarded: TestClient) -> None:
    guarded.post("/embed", content=b"")
    assert 'outcome="unauthorized"' in guarded.get("/metrics").text


def test_keys_are_not_in_the_settings_text(guarded: TestClient) -> None:
    assert ONE not in repr(guarded.app.state.settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        ("short\n", "5 characters"),
        ("a b c d e f g h i j\n", "spaces"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(ApiKeyError, match=words) as caught:
        api_keys.load(None, file)
    assert not content.strip("# \n") or content.strip() not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyError, match="LANDMOE_API_KEYS_FILE"):
        api_keys.load(None, tmp_path / "none")


def test_no_keys_is_open() -> None:
    assert not ApiKeys([])
    assert not api_keys.load(None, None)
    assert not api_keys.load("", None)


@pytest.mark.parametrize("keys", [",", " , ", " "])
def test_a_setting_without_a_key_is_not(keys: str) -> None:
    """Whoever writes "$ONE,$TWO" means to let some in, not everyone."""
    with pytest.raises(ApiKeyError, match="has no key"):
        api_keys.load(keys, None)


def test_answers_tell_browsers_to_be_careful(client: TestClient) -> None:
    for path in ("/model", "/docs", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script-src" not in client.get("/model").headers["content-security-policy"]


def test_other_origins_are_not_let_in_unless_configured(make_client: MakeClient) -> None:
    here, there = {"Origin": "https://map.example"}, {"Origin": "https://other.example"}
    closed = make_client().get("/model", headers=here)
    assert "access-control-allow-origin" not in closed.headers
    client = make_client(cors_origins="https://map.example", api_keys=ONE)
    assert client.get("/model", headers=here | {"X-API-Key": ONE}).headers["access-control-allow-origin"] == (
        "https://map.example"
    )
    assert "access-control-allow-origin" not in client.get("/model", headers=there).headers
    # A browser asks first, without the key; and must be able to read why it was refused.
    asked = client.options(
        "/embed",
        headers=here
        | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"},
    )
    assert asked.status_code == 200
    assert "x-api-key" in asked.headers["access-control-allow-headers"].lower()
    asked = client.options("/embed", headers=there | {"Access-Control-Request-Method": "DELETE"})
    assert (asked.status_code, asked.headers["content-type"]) == (400, "application/problem+json")
    assert "not allowed here: origin, method" in asked.json()["detail"]
    assert asked.json()["request_id"] == asked.headers["x-request-id"]
    refused = client.post("/embed", headers=here)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://map.example"
    assert "X-Request-ID" in refused.headers["access-control-expose-headers"]


def test_metrics_are_not_beside_the_service_where_they_have_a_port(make_client: MakeClient) -> None:
    assert make_client(metrics_port=65_000).get("/metrics").status_code == 404
