"""Weight files: fetching and reading them, and placing their tensors in a model."""
