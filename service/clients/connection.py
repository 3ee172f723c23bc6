"""One service over HTTP: a request is sent again while the service is busy or away."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import httpx
import stamina

from service.clients.errors import RETRIED, TransportError, error_of
from service.clients.retries import log_retries_aside, wait_s
from service.clients.tile_requests import TileRequest

_CONNECT_S = 10.0
_FIRST_CONTACT_S = 15.0  # that a service may take to answer for the first time; a wrong address never does


class Connection:
    """Sends requests to a service; use it with `async with`.

    Args:
        url: of the service.
        api_key: sent as X-API-Key.
        timeout_s: the longest silence of the service during a request.
        max_wait_s: how long a request is tried again; 0 = never.
        concurrency: requests under way at once.
        headers: sent with every request.
        transport: of httpx, instead of a connection to `url`.

    Raises:
        TransportError: the URL, a header or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        timeout_s: float,
        max_wait_s: float,
        concurrency: int,
        headers: dict[str, str],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise TransportError(
                f"{url!r} is no address of a service; expected such as http://127.0.0.1:8000"
            )
        log_retries_aside()
        self._max_wait_s = max_wait_s
        key = {"X-API-Key": api_key} if api_key else {}
        try:
            self._http = httpx.AsyncClient(
                base_url=url,
                headers={"User-Agent": "landmoe", **headers, **key},
                timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=None),
                limits=httpx.Limits(max_connections=concurrency + 1),
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise TransportError(f"{url!r} is no address of a service: {error}") from error
        except UnicodeEncodeError as error:
            raise TransportError("a header or the API key has other characters than ASCII") from error
        self._began: float | None = None  # until the service has answered for the first time
        self._reached = False

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def get(self, route: str, **params: str) -> httpx.Response:
        """The answer to a question that may be asked in vain, whatever its status.

        Raises:
            httpx.HTTPError: there is none.
        """
        return await self._http.get(route, params=params)

    async def send(
        self,
        method: str,
        route: str,
        request: TileRequest | None = None,
        fields: dict[str, list[str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request, which is 200.

        Raises:
            ProblemError: it was another one, in the end.
            TransportError: there was none.
            UnusableTileError: a file of the request cannot be read.
        """
        if self._began is None:
            self._began = time.monotonic()
        async for attempt in stamina.retry_context(
            on=self._wait_s,
            attempts=None if self._max_wait_s else 1,
            timeout=self._max_wait_s or None,
            wait_max=10,
        ):
            with attempt:
                response = await self._once(method, route, request, fields, headers)
        return response

    async def _once(
        self,
        method: str,
        route: str,
        request: TileRequest | None,
        fields: dict[str, list[str]] | None,
        headers: dict[str, str] | None,
    ) -> httpx.Response:
        with ExitStack() as stack:
            files = stack.enter_context(request.opened()) if request is not None else None
            try:
                response = await self._http.request(method, route, data=fields, files=files, headers=headers)
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                raise TransportError(f"no answer from {self._http.base_url}: {reason}") from error
        self._reached = True
        if response.status_code != httpx.codes.OK:
            raise error_of(response)
        return response

    def _wait_s(self, error: Exception) -> bool | float:
        """Whether a request is tried again; the seconds until then where the service says them."""
        if not self._reached and self._began is not None:
            return isinstance(error, RETRIED) and time.monotonic() - self._began < _FIRST_CONTACT_S
        return wait_s(error)
