"""Explainers of networks of Flax NNX, Linen and Equinox, cut at layers by name: one module for each library."""
