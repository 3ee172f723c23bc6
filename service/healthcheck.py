"""`python -m service.healthcheck`: is the service of this container ready? The image has no curl.

The standard library alone, so that asking every few seconds costs next to nothing.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 3  # less than the 4 s after which the container's health check gives up


def unready(host: str, port: int) -> str | None:
    """What keeps the service from taking requests, in one line; None if it takes them."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}/readyz: {error}"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else f"/readyz answered {answer.status}: {body}"


def main() -> None:
    """Asks the service on this machine at LANDMOE_PORT; exit status 1 and the reason if it is not ready."""
    reason = unready("127.0.0.1", int(os.environ.get("LANDMOE_PORT") or 8000))
    if reason is not None:
        sys.exit(reason)


if __name__ == "__main__":
    main()
