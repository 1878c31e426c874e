"""Networks of other makers as explainers: one module for each library, cut at layers that are named."""
