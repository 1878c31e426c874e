"""Concepts from captions (Zhou et al. 2016, section 4.2): `python -m experiments.concepts`."""
