"""A weakly supervised text detector (Zhou et al. 2016, section 4): `python -m experiments.text_detector`."""
