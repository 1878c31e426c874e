"""Localization on ILSVRC, tables 1 to 3 of Zhou et al. 2016: `python -m experiments.imagenet_localization`."""
