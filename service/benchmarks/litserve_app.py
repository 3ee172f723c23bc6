"""LitServe around the same encoder: decodes as plain_app.py does, batches, has a process for each CPU."""

# Annotations are evaluated here: LitServe looks whether one is `Request` itself.
import sys
from collections.abc import Sequence
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort
from fastapi import Request
from numpy.typing import NDArray

from service.benchmarks import plain_app

# As our engine: four tiles still fit the cache. Without a timeout its workers would spin while they wait.
_BATCH_SIZE = 4
_BATCH_TIMEOUT_S = 0.001

Tile = tuple[NDArray[np.uint16], NDArray[np.float32]]


class Embed(litserve.LitAPI):
    """One tile in the form field `tile`; batches of several requests."""

    def __init__(self, encoder: str) -> None:
        super().__init__(max_batch_size=_BATCH_SIZE, batch_timeout=_BATCH_TIMEOUT_S, api_path="/embed")
        self._encoder = encoder

    def setup(self, device: str) -> None:  # noqa: ARG002  # given by LitServe
        """In each worker: a session of one thread, since there are as many workers as CPUs."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(self._encoder, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Request) -> Tile:
        """A form to a prepared tile."""
        form: Any = request  # LitServe hands over the form of a request that is one
        return plain_app.read(form["tile"].file.read())

    def batch(self, inputs: Sequence[Tile]) -> Tile:
        """Tiles to one batch."""
        return np.stack([dn for dn, _ in inputs]), np.stack([encoding for _, encoding in inputs])

    def predict(self, x: Tile) -> NDArray[np.float32]:
        """A batch to its embeddings."""
        return self._session.run(["mean"], {"dn": x[0], "metadata": x[1]})[0]  # type: ignore[no-any-return]

    def unbatch(self, output: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Embeddings to one for each request."""
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, list[float]]:
        """JSON-ready."""
        return {"embedding": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Embed(sys.argv[1]), accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[3]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
