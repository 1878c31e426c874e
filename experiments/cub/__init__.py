"""Birds, table 4 of Zhou et al. 2016: `python -m experiments.cub`."""
