"""Names of VGG-16's weights as torchvision writes them, and of the localization benchmark's VggCam."""

from camjax.weights.names import CONV, DENSE, Rule

# Both number the layers of `features`, poolings and ReLUs among them. Without the fourth pooling (a map of 28 x 28)
# the last three numbers are one less; no layer with weights has those numbers otherwise.
_NUMBERS = {
    "conv1_1": "0",
    "conv1_2": "2",
    "conv2_1": "5",
    "conv2_2": "7",
    "conv3_1": "10",
    "conv3_2": "12",
    "conv3_3": "14",
    "conv4_1": "17",
    "conv4_2": "19",
    "conv4_3": "21",
    "conv5_1": "2[43]",
    "conv5_2": "2[65]",
    "conv5_3": "2[87]",
}

# torchvision's normalization of images, for the paper's VGGnet-GAP too, which takes Caffe's until it has such weights.
INPUT_RULE = {"mean": (0.485 * 255, 0.456 * 255, 0.406 * 255), "std": (0.229 * 255, 0.224 * 255, 0.225 * 255)}

TABLE = (
    *(
        rule
        for layer, number in _NUMBERS.items()
        for rule in (
            Rule(rf"features\.{number}\.weight", f"{layer}.kernel", CONV),
            Rule(rf"features\.{number}\.bias", f"{layer}.bias"),
        )
    ),
    *(
        rule
        for number, layer in ((0, "fc6"), (3, "fc7"), (6, "fc8"))
        for rule in (
            Rule(rf"classifier\.{number}\.weight", f"head.{layer}.kernel", DENSE),
            Rule(rf"classifier\.{number}\.bias", f"head.{layer}.bias"),
        )
    ),
    Rule(r"conv6\.weight", "conv6.kernel", CONV),
    Rule(r"conv6\.bias", "conv6.bias"),
    Rule(r"fc\.weight", "head.kernel", DENSE),
    Rule(r"fc\.bias", "head.bias"),
)
