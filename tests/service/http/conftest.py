"""A host of files, for requests that link to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rasters import dn_pixels, geotiff
from tests.service.http.file_host import FileHost, file_host


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as host:
        host.files["a.tif"] = geotiff(dn_pixels(seed=1))
        host.files["folder/b c.tif"] = geotiff(dn_pixels(seed=2))
        yield host
