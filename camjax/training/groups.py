"""Parameter groups: the layers that are new, and the backbone that is trained already, for different learning rates."""

from collections.abc import Sequence

import jax
import optax

BACKBONE, NEW = "backbone", "new"


def parameter_groups(parameters, new: Sequence[str] = ("head",)):
    """Which parameters are of new layers, and which of the backbone.

    Fine-tuning gives layers that start from random weights a learning rate of, say, ten times that of the others, as
    Caffe's `lr_mult: 10` does.

    Args:
      parameters: a model, its state, or a tree of arrays by the same names, as optax gets it.
      new: places in the model whose parameters are new, each with all below it: "head", "cam_conv",
        "layers.4.conv".

    Returns:
      A tree of the same structure, with "new" or "backbone" in the place of each array: what `optax.partition` takes as
      its labels.

    Raises:
      ValueError: the model has nothing at one of the places.
    """
    found = set()

    def group(path, _):
        place = jax.tree_util.keystr(path, simple=True, separator=".")
        matches = [name for name in new if f"{place}.".startswith(f"{name}.")]
        found.update(matches)
        return NEW if matches else BACKBONE

    groups = jax.tree_util.tree_map_with_path(group, parameters)
    missing = [name for name in new if name not in found]
    if missing:
        tops = {jax.tree_util.keystr(path[:1], simple=True) for path, _ in jax.tree.leaves_with_path(parameters)}
        raise ValueError(
            f"new layers {', '.join(map(repr, missing))}: the model has no parameters there. Its layers are "
            f"{', '.join(sorted(tops))}."
        )
    return groups


def scale_new_layers(factor: float, new: Sequence[str] = ("head",)) -> optax.GradientTransformation:
    """Multiplies the updates of new layers, which behind an optimizer's learning rate multiplies that rate.

    Args:
      factor: the learning rate of the new layers over that of the backbone.
      new: as in `parameter_groups`.
    """
    return optax.partition(
        {BACKBONE: optax.identity(), NEW: optax.scale(factor)}, lambda parameters: parameter_groups(parameters, new)
    )
