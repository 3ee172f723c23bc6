"""What the numbers mean: the one definition that training, export and service share."""

import os

# From 1.29 on, ONNX Runtime's Linux builds report every session to their maker unless this is set when the
# module is first imported. Whoever wants it sets ORT_DISABLE_TELEMETRY=0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
