"""Training of GAP networks from class labels."""
