"""Files that are named by URLs instead of uploaded, from hosts that the operator allows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import structlog

from service.errors import RequestError, ServiceError
from service.http.allowed_hosts import AllowedHosts
from service.http.in_thread import in_thread
from service.http.spool import Share, SpoolFile
from service.telemetry import metrics

if TYPE_CHECKING:
    from httpx import URL, AsyncClient, Response

log = structlog.get_logger()

_AT_ONCE = 64  # of this process; more wait
_REDIRECTS = 5
_CHUNK_BYTES = 1 << 18
_CONNECT_S = 5.0


class ProxyError(ValueError):
    """The proxies that the environment names cannot be used."""


class Budget:
    """Bytes that the files of one request may have together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def check(self, size: int) -> None:
        """Refuses what is announced.

        Raises:
            RequestError: it would be more than is left.
        """
        if size > self._left:
            raise RequestError(
                "too-large",
                f"the files fetched have more than {self._max_bytes:,} bytes together; expected fewer "
                "(LANDMOE_MAX_UPLOAD_MB)",
            )

    def take(self, size: int) -> None:
        """Counts what has come; raises as `check`."""
        self.check(size)
        self._left -= size


class Fetcher:
    """Asks for URLs. The same rules hold for what a redirection leads to.

    Args:
        hosts: that may be asked.
        timeout_s: for one file, to its last byte.
        max_bytes: of all files of a request.
        admit: told how many tiles are to be fetched, before they are; raises where there is no room for them.
    """

    def __init__(
        self, hosts: AllowedHosts, *, timeout_s: float, max_bytes: int, admit: Callable[[int], None]
    ) -> None:
        self.hosts = hosts
        self.admit = admit
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)
        # At once: it takes a third of a second, for which no request should stop the event loop.
        self._client = _make_client(timeout_s) if hosts else None

    def budget(self) -> Budget:
        """For one request."""
        return Budget(self._max_bytes)

    async def fetch(self, text: str, budget: Budget, share: Share) -> SpoolFile:
        """The file at a URL, in memory as long as the share lasts, else on disk.

        Raises:
            RequestError: the URL cannot be used (`bad-parameter`, `fetch-not-allowed`), nothing came of it
                (`fetch-failed`), or too much (`too-large`).
            SpoolError: there is no room for it.
        """
        outcome = "failed"
        try:
            url = self.hosts.check(text)
            assert self._client is not None  # noqa: S101  # there are hosts
            found = await self._fetch(self._client, url, budget, share)
            outcome = "ok"
        except ServiceError as error:
            outcome = "refused"
            if error.code == "fetch-failed":
                outcome = "failed"
                log.info("fetch failed", detail=str(error))  # the operator wants to know which host
            raise
        except asyncio.CancelledError:  # which says nothing about the host
            outcome = "cancelled"
            raise
        finally:
            metrics.FETCHED[outcome].inc()
        return found

    async def close(self) -> None:
        """Closes what connections there are."""
        if self._client is not None:
            await self._client.aclose()

    async def _fetch(self, client: AsyncClient, url: URL, budget: Budget, share: Share) -> SpoolFile:
        import httpx

        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._get(client, url, budget, share)
            except TimeoutError as error:
                raise _failed(url, f"did not come within {self._timeout_s:g} s") from error
            # The last two are of redirections to what httpx cannot take for a URL.
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, UnicodeError) as error:
                raise _failed(url, f"did not come: {str(error) or type(error).__name__}") from error

    async def _get(self, client: AsyncClient, url: URL, budget: Budget, share: Share) -> SpoolFile:
        asked = url
        for _ in range(_REDIRECTS + 1):
            async with client.stream("GET", url) as response:
                if response.next_request is not None:
                    url = self._redirected(asked, response.next_request.url)
                    continue
                if response.status_code != 200:
                    came = f"{response.status_code} {response.reason_phrase}".rstrip()
                    raise _failed(asked, f"was answered {came}; expected 200 and a GeoTIFF")
                if (coding := response.headers.get("content-encoding", "identity").lower()) != "identity":
                    raise _failed(asked, f"came as {coding[:50]!r}; expected no Content-Encoding")
                return await _received(response, budget, share)
        raise _failed(asked, f"was redirected more than {_REDIRECTS} times")

    def _redirected(self, asked: URL, url: URL) -> URL:
        try:
            return self.hosts.check(str(url))
        except RequestError as error:
            raise RequestError("fetch-not-allowed", f"{_shown(asked)} was redirected: {error}") from error


def check_proxies(hosts: str | None) -> None:
    """Tries what fetching from the setting's hosts needs; a start then ends in a line, not with a trace.

    Raises:
        ProxyError: the environment names a proxy that cannot be used.
    """
    if hosts:
        _make_client(1)


def _make_client(timeout_s: float) -> AsyncClient:
    import httpx  # takes 10 MB, which only who fetches needs

    # They would write URLs and Locations into the log, whose ends may be signatures.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=_AT_ONCE),
            headers={"Accept-Encoding": "identity", "User-Agent": "landmoe"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # of one request to another: none
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # the first of SOCKS, which wants a package
        raise ProxyError(
            "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY in the environment cannot be used to fetch files; expected "
            "one such as http://proxy.example.org:3128"
        ) from error


async def _received(response: Response, budget: Budget, share: Share) -> SpoolFile:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal():
        budget.check(int(announced[:20]))
    file = share.open()
    try:
        async for chunk in response.aiter_raw(_CHUNK_BYTES):
            budget.take(len(chunk))
            if file.on_disk:
                await in_thread(file.write, chunk)
            else:
                file.write(chunk)
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    return file


def _failed(url: URL, what: str) -> RequestError:
    return RequestError("fetch-failed", f"{_shown(url)} {what}")


def _shown(url: URL) -> str:
    """The URL as it was sent, without what stands behind `?`, which may be a signature."""
    path = url.raw_path.partition(b"?")[0]
    return f"{url.scheme}://{url.netloc.decode()}{path[:200].decode()}"
