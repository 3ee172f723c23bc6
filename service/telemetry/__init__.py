"""Metrics, logs, traces and vital signs."""
