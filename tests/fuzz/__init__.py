"""Mutated GeoTIFFs against a running service: `python -m tests.fuzz --help`."""
