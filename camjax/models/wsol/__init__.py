"""Methods of training for weakly supervised localization: the rivals of CAM in the benchmark of Choe et al. 2020.

`camjax.models.wsol.table` is the one table of them. A model that is made for one trains by it with
`camjax.training.fit`, and its map is that of the method; HaS, CutMix and ADL leave inference as it is.
"""
