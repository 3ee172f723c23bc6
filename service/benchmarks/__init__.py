"""Measures the running service."""
