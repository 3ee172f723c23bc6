"""Files that came before are known by their bytes and parameters, without being decoded.

An alias leads from these to the prepared tile's hash and to the fields of its item. Its key names the model,
the version of the service, the rules of preparation, the limits and the shape of the answer, so that it never
outlives them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import BaseModel

from model.bundle import Bundle
from model.config import PREPROCESSING_VERSION
from service.cache import Cache
from service.describe import DescribedTile
from service.errors import RequestError
from service.files import File, Source
from service.json_text import dumps
from service.parameters import TileParameters
from service.rasters.geotiff import Limits
from service.schemas import Item

_FORMAT_VERSION = 9  # one more when files are refused that were not before, or described otherwise
_INLINE_BYTES = 131_072  # hashing this much takes 0.1 ms, about what handing it to a thread does
# Options that change nothing about how a tile is prepared. One that is not named here makes another alias.
_AFTER_PREPARATION = {"pooling", "normalize", "format", "probe", "top_k", "threshold", "on_error"}
_HASH_BYTES = 32


def rules(bundle: Bundle, limits: Limits) -> bytes:
    """Everything but the request that what is said of a file depends on."""
    return dumps(
        {
            "format": _FORMAT_VERSION,
            "service": version("landmoe"),
            "preprocessing": PREPROCESSING_VERSION,
            "bundle": bundle.digest,
            "limits": repr(limits),
            "answer": Item.model_json_schema(),
        }
    )


class Aliases:
    """The first question to the cache.

    Args:
        bundle: whose rules and warnings the fields follow.
        limits: that a file was within when it was prepared.
        cache: where aliases are kept.
        threads: that hash large files.
    """

    def __init__(self, bundle: Bundle, limits: Limits, cache: Cache, threads: Executor) -> None:
        self._cache = cache
        self._threads = threads
        self._rules = rules(bundle, limits)

    async def find(
        self,
        files: Sequence[Source],
        parameters: Sequence[TileParameters | RequestError],
        options: BaseModel,
    ) -> tuple[dict[int, bytes], dict[int, DescribedTile]]:
        """What is known of files.

        Args:
            files: one GeoTIFF each.
            parameters: for each file, or what is wrong with them.
            options: of the whole request.

        Returns:
            By the file's index, the key of its alias where it may have one; and what is known where it is.
        """
        keys = await self._keys(files, parameters, options)
        found = await self._cache.get_aliases(list(keys.values()), lambda payload: _read(payload) is not None)
        described: dict[int, DescribedTile] = {}
        for i, payload in zip(keys, found, strict=True):
            record = None if payload is None else _read(payload)
            if record is not None:
                digest, fields = record
                described[i] = DescribedTile(
                    digest,
                    fields | {"id": getattr(parameters[i], "id", None), "source": files[i].source},
                )
        return keys, described

    async def _keys(
        self,
        files: Sequence[Source],
        parameters: Sequence[TileParameters | RequestError],
        options: BaseModel,
    ) -> dict[int, bytes]:
        said = options.model_dump(exclude=_AFTER_PREPARATION)
        if said.get("fit") == "grid":
            return {}  # many tiles of one file
        prefix = hashlib.sha256(self._rules + dumps(said))
        loop = asyncio.get_running_loop()
        keys: dict[int, bytes] = {}
        for i, (file, given) in enumerate(zip(files, parameters, strict=True)):
            if isinstance(given, RequestError) or not (
                isinstance(file, File) and isinstance(file.data, bytes)  # large ones lie on disk
            ):
                continue
            state = prefix.copy()
            state.update(dumps([given.model_dump(exclude={"id"}), file.source]))
            if len(file.data) <= _INLINE_BYTES:
                state.update(file.data)
            else:
                await loop.run_in_executor(self._threads, state.update, file.data)
            keys[i] = b"landmoe:alias:" + state.hexdigest().encode()
        return keys

    def keep(self, tiles: dict[bytes, DescribedTile]) -> None:
        """Keeps what is known of files under the keys of their aliases; returns at once."""
        self._cache.put(
            {
                key: dumps({"hash": tile.hash.hex(), "fields": tile.fields | {"id": None, "source": None}})
                for key, tile in tiles.items()
            }
        )


def _read(payload: bytes) -> tuple[bytes, dict[str, Any]] | None:
    """The tile's hash and fields; None if the record is not one."""
    try:
        record = orjson.loads(payload)
        digest, fields = bytes.fromhex(record["hash"]), record["fields"]
    except (ValueError, TypeError, KeyError):
        return None
    return (digest, fields) if len(digest) == _HASH_BYTES and isinstance(fields, dict) else None
