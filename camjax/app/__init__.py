"""The page of `camjax app`: pictures and their maps, and what `camjax evaluate` or `camjax annotate` found."""
