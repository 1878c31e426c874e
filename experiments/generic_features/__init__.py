"""Generic features, table 5 of Zhou et al. 2016: `python -m experiments.generic_features`."""
