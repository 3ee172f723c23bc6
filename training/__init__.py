"""Produces checkpoints, probes, figures and the model card."""
