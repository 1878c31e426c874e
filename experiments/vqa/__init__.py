"""Visual question answering (Zhou et al. 2016, section 4): `python -m experiments.vqa`."""
