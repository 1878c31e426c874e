"""Evaluating where a network looks: the methods that are compared, and what runs them over a data set."""
