"""Informative objects in places (Zhou et al. 2016, section 4): `python -m experiments.scene_objects`."""
