"""The HTTP application."""

import os

# Before anything here imports ONNX Runtime; see model/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
