"""The HTTP application."""

import os

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before anything here imports ONNX Runtime; see model/__init__.py
