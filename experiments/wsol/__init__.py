"""The benchmark for weakly supervised localization: `python -m experiments.wsol`."""
