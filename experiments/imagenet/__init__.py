"""Training on ImageNet: `python -m experiments.imagenet`."""
