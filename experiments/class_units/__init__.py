"""Units that a class is made of (Zhou et al. 2016, section 5): `python -m experiments.class_units`."""
