"""Readers of weight files, and the name tables that place their tensors in a model."""
