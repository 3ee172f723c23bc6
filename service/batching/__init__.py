"""Admitting tiles, sharing them out in batches, and the workers that run these."""
