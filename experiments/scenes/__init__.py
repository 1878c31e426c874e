"""The demo on digits, the data set "scenes": `python -m experiments.scenes`."""
