"""Options with which methods that draw or change images need few copies, on images of 16 pixels and more."""

FEW = {
    "sscam": {"num_samples": 2},
    "iscam": {"num_samples": 2},
    "integrated_gradients": {"num_steps": 2},
    "smoothgrad": {"num_samples": 2},
    "occlusion": {"window": 16, "stride": 16},
    "rise": {"num_masks": 4},
}
