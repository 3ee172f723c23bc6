"""/docs in a real browser: what a person sees and sends with "Try it out"."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.rasters import geotiff
from tests.service.deliveries import parts
from tests.service.server_process import ServerProcess

pytestmark = [pytest.mark.browser, pytest.mark.server]
WAIT_S = 60
TILES = "tr[data-property-name='tile']"
ADD_FILE = f"{TILES} .json-schema-form-item-add"
FILE = f"{TILES} input[type=file]"
BODY_FILE = ".opblock-section-request-body input[type=file]"
DATETIME = "tr[data-property-name='datetime'] input[type=text]"
POOLING = "tr[data-property-name='pooling'] select"
FIELDS = (ADD_FILE, FILE, DATETIME, POOLING)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    driver = shutil.which("chromedriver")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    missing = [name for name, path in (("chromedriver", driver), ("chromium", binary)) if path is None]
    if missing:
        reason = f"no {' and no '.join(missing)} on this machine (Debian: chromium, chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = str(binary)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,3000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def operation(browser: webdriver.Chrome, server: ServerProcess) -> WebElement:
    return _open(browser, server)


def _open(browser: webdriver.Chrome, server: ServerProcess) -> WebElement:
    """The opened block of POST /embed, with the fields of its form: the page draws them after the button."""
    browser.get(f"{server.url}/docs")
    block = _find(browser, "#operations-embeddings-embed")
    block.find_element(By.CSS_SELECTOR, ".opblock-summary").click()
    for selector in (".execute", *FIELDS):
        _find(browser, f"#operations-embeddings-embed {selector}")
    return block


def test_try_it_out_embeds_a_file(browser: webdriver.Chrome, operation: WebElement, tmp_path: Path) -> None:
    """Only the file is chosen; every other field stays as the page has it."""
    answer = _execute(browser, operation, tmp_path)
    assert answer["summary"]["embedded"] == 1
    assert answer["data"][0]["source"] == "tile.tif"
    assert answer["data"][0]["metadata_source"]["location"] == "file"


def test_try_it_out_with_several_files(
    browser: webdriver.Chrome, operation: WebElement, tmp_path: Path
) -> None:
    answer = _execute(browser, operation, tmp_path, "a.tif", "b.tif")
    assert [item["source"] for item in answer["data"]] == ["a.tif", "b.tif"]


def test_try_it_out_with_a_delivery(browser: webdriver.Chrome, operation: WebElement, tmp_path: Path) -> None:
    """The field for a tile stays empty."""
    for part, (name, content) in parts().items():
        file = tmp_path / name
        file.write_bytes(content)
        _find(browser, f"tr[data-property-name='{part}'] input[type=file]").send_keys(str(file))
    assert _answer(browser, operation)["summary"]["embedded"] == 1


def test_try_it_out_with_fields(browser: webdriver.Chrome, operation: WebElement, tmp_path: Path) -> None:
    operation.find_element(By.CSS_SELECTOR, DATETIME).send_keys("2020-08-02T18:31:00Z")
    Select(operation.find_element(By.CSS_SELECTOR, POOLING)).select_by_visible_text("cls")
    answer = _execute(browser, operation, tmp_path)
    assert answer["pooling"] == "cls"
    assert answer["data"][0]["datetime"] == "2020-08-02T18:31:00Z"


def test_try_it_out_with_the_file_as_the_body(
    browser: webdriver.Chrome, operation: WebElement, tmp_path: Path
) -> None:
    Select(operation.find_element(By.CSS_SELECTOR, "select.content-type")).select_by_value("image/tiff")
    _find(browser, "tr[data-param-name=id] input").send_keys("mine")
    file = tmp_path / "tile.tif"
    file.write_bytes(geotiff())
    _find(browser, BODY_FILE).send_keys(str(file))
    answer = _answer(browser, operation)
    assert answer["data"][0]["id"] == "mine"
    assert answer["data"][0]["source"] is None


def test_the_page_needs_no_other_host_and_has_no_errors(
    browser: webdriver.Chrome, operation: WebElement, server: ServerProcess
) -> None:
    urls = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.add(message["params"]["request"]["url"])
    assert urls
    assert all(url.startswith((server.url, "data:", "blob:", "chrome")) for url in urls), urls
    severe = [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert severe == []
    assert not operation.find_elements(By.CSS_SELECTOR, ".errors-wrapper")


def test_a_key_is_given_on_the_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    key = "a-key-of-24-characters--"
    with ServerProcess(LANDMOE_API_KEYS=key) as server:
        block = _open(browser, server)
        _find(browser, ".auth-wrapper .authorize").click()
        _find(browser, ".auth-container input[type=text]").send_keys(key)
        _find(browser, ".auth-btn-wrapper .authorize").click()
        _find(browser, ".auth-btn-wrapper .btn-done").click()
        assert _execute(browser, block, tmp_path)["summary"]["embedded"] == 1


def _execute(browser: webdriver.Chrome, operation: WebElement, folder: Path, *names: str) -> dict[str, Any]:
    """Chooses files, `tile.tif` if none is named, and sends them."""
    for number, name in enumerate(names or ("tile.tif",), start=1):
        file = folder / name
        file.write_bytes(geotiff())
        if number > 1:
            _find(browser, ADD_FILE).click()
        WebDriverWait(browser, WAIT_S).until(lambda b, n=number: len(_files(b)) == n)
        _files(browser)[-1].send_keys(str(file))
    return _answer(browser, operation)


def _files(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, FILE)


def _answer(browser: webdriver.Chrome, operation: WebElement) -> dict[str, Any]:
    operation.find_element(By.CSS_SELECTOR, ".execute").click()
    code = _find(browser, ".live-responses-table .response .highlight-code")
    status = _find(browser, ".live-responses-table .response .response-col_status").text
    body = browser.execute_script("return arguments[0].textContent", code)
    assert status.startswith("200"), body
    answer: dict[str, Any] = json.loads(body[body.index("{") : body.rindex("}") + 1])
    return answer


def _find(browser: webdriver.Chrome, selector: str) -> WebElement:
    try:
        return WebDriverWait(browser, WAIT_S).until(
            lambda b: b.find_element(By.CSS_SELECTOR, selector), f"no {selector} on the page"
        )
    except WebDriverException as error:
        raise AssertionError(f"{error}: {browser.get_log('browser')}") from error
