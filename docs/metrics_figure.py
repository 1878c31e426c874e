"""Draws `docs/metrics.jpg`: one map, read by each of the metrics.

    python docs/metrics_figure.py

The photograph is scikit-image's coffee, the network the pretrained EfficientNet-Lite0, the true box drawn by hand. The
photograph has no mask; the last panel takes the box for one.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage import data

import camjax
from camjax.components import largest_component
from camjax.data.images import resize_image
from camjax.metrics import contour_boxes, score_map
from camjax.metrics.localization.box_overlap import iou_matrix
from camjax.viz import overlay

SIDE = 224
ESPRESSO = 967
TRUE_BOX = np.array([18 / 400, 172 / 600, 308 / 400, 402 / 600])  # of the cup
TRUE, DRAWN = "magenta", "white"


def draw(axis, box, color, label=None, **style):
    """A box [ymin, xmin, ymax, xmax] in 0..1, or in pixels if any number is above 1."""
    y0, x0, y1, x1 = np.asarray(box) * (1 if np.max(box) > 1 else SIDE)
    axis.add_patch(
        Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2, label=label, **style)
    )


def main() -> None:
    """Draws the panels and writes the file."""
    photo = resize_image(data.coffee(), SIDE)
    model = camjax.load_model("efficientnet_lite0")
    out = camjax.make_localize_fn(model)(photo[None], np.array([ESPRESSO]))
    raw, box = np.asarray(out.maps)[0, 0], np.asarray(out.boxes)[0, 0]
    large = np.asarray(camjax.resize_map(raw, (SIDE, SIDE)))
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.9), layout="constrained")
    panels = axes.ravel()
    for axis in panels[:5]:
        axis.set(xticks=[], yticks=[])

    panels[0].imshow(photo)
    draw(panels[0], TRUE_BOX, TRUE)
    panels[0].set_title("photograph and true box of the cup", fontsize=10)

    panels[1].imshow(overlay(photo, raw))
    y, x = np.unravel_index(large.argmax(), large.shape)
    panels[1].plot(x, y, "o", markersize=9, markerfacecolor="white", markeredgecolor="black")
    draw(panels[1], TRUE_BOX, TRUE)
    panels[1].set_title('pointing game: is the maximum of the\nmap of "espresso" inside?', fontsize=10)

    region = large > 0.2 * large.max()
    component = np.asarray(largest_component(region))
    panels[2].imshow(np.where(component[..., None], photo, photo // 4))
    draw(panels[2], TRUE_BOX, TRUE)
    draw(panels[2], box, DRAWN, linestyle="--")
    iou = iou_matrix(box[None], TRUE_BOX[None])[0, 0]
    panels[2].set_title(f"GT-known: above 20 % of the maximum,\nlargest component; IoU {iou:.2f}", fontsize=10)

    score = score_map(raw)
    panels[3].imshow(photo)
    draw(panels[3], TRUE_BOX, TRUE)
    thresholds = (0.2, 0.4, 0.6, 0.8)
    for threshold, boxes in zip(thresholds, contour_boxes(score, thresholds), strict=True):
        x0, y0, x1, y1 = boxes[0]
        draw(panels[3], (y0, x0, y1, x1), plt.cm.viridis(threshold), label=f"{threshold:.0%}")
    panels[3].legend(fontsize=8, loc="lower right")
    panels[3].set_title("MaxBoxAcc: the largest contour at each\nthreshold; one threshold for all images", fontsize=10)

    low = 0.35
    panels[4].imshow(np.where((score > low * score.max())[..., None], photo, photo // 4))
    draw(panels[4], TRUE_BOX, TRUE)
    for x0, y0, x1, y1 in contour_boxes(score, [low], all_contours=True)[0]:
        draw(panels[4], (y0, x0, y1, x1), DRAWN, linestyle="--")
    panels[4].set_title(f"MaxBoxAccV2: every contour,\nhere at {low:.0%}; IoU 0.3, 0.5, 0.7", fontsize=10)

    mask = np.zeros((SIDE, SIDE), bool)
    y0, x0, y1, x1 = np.rint(TRUE_BOX * SIDE).astype(int)
    mask[y0:y1, x0:x1] = True
    inside = mask.ravel()[np.argsort(-score.ravel(), kind="stable")].cumsum()
    panels[5].plot(inside / mask.sum(), inside / np.arange(1, mask.size + 1))
    panels[5].fill_between(inside / mask.sum(), inside / np.arange(1, mask.size + 1), alpha=0.2)
    panels[5].set(xlabel="recall of the object's pixels", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    panels[5].set_title("PxAP: the area under precision and recall\nof the pixels at every threshold", fontsize=10)
    figure.savefig(Path(__file__).with_name("metrics.jpg"), dpi=110, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
