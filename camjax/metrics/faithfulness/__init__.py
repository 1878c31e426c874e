"""How faithful maps are to the network: metrics that need no annotation, and the sanity check by random weights."""
