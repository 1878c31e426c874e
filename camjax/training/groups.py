"""Parameter groups: the layers that are new, the backbone that is trained already, and what is not trained at all."""

from collections.abc import Sequence

import jax
import optax

BACKBONE, NEW, FROZEN, TRAINED = "backbone", "new", "frozen", "trained"


def parameter_groups(parameters, new: Sequence[str] = ("head",), frozen: Sequence[str] = ()):
    """Which parameters are of new layers, which of the backbone, and which of these are frozen.

    Fine-tuning gives layers that start from random weights a learning rate of, say, ten times that of the others, as
    Caffe's `lr_mult: 10` does; or it trains them alone.

    Args:
      parameters: a model, its state, or a tree of arrays by the same names, as optax gets it.
      new: places in the model whose parameters are new, each with all below it: "head", "cam_conv",
        "layers.4.conv".
      frozen: places whose parameters are not trained, as `new` names them; "backbone" is all that is not new. A
        parameter that is in both is frozen.

    Returns:
      A tree of the same structure, with "new", "backbone" or "frozen" in the place of each array: what
      `optax.partition` takes as its labels.

    Raises:
      ValueError: the model has nothing at one of the places, or nothing is left to train.
    """
    named = {"new layers": [*new], "frozen": [name for name in frozen if name != BACKBONE]}
    found = set()

    def group(path, _):
        place = jax.tree_util.keystr(path, simple=True, separator=".")
        found.update((kind, name) for kind, names in named.items() for name in names if is_at(place, [name]))
        if is_frozen(place, frozen, new):
            return FROZEN
        return NEW if is_at(place, new) else BACKBONE

    groups = jax.tree_util.tree_map_with_path(group, parameters)
    for kind, names in named.items():
        missing = [name for name in names if (kind, name) not in found]
        if missing:
            tops = {jax.tree_util.keystr(path[:1], simple=True) for path, _ in jax.tree.leaves_with_path(parameters)}
            raise ValueError(
                f"{kind} {', '.join(map(repr, missing))}: the model has no parameters there. Its layers are "
                f"{', '.join(sorted(tops))}."
            )
    if frozen and set(jax.tree.leaves(groups)) == {FROZEN}:
        raise ValueError(
            f"frozen {', '.join(map(repr, frozen))}: that is all of the model, and nothing is left to train."
        )
    return groups


def is_at(place: str, names: Sequence[str]) -> bool:
    """Whether a place such as "layers.4.conv.kernel" is one of those named, or below one."""
    return any(f"{place}.".startswith(f"{name}.") for name in names)


def is_frozen(place: str, frozen: Sequence[str], new: Sequence[str] = ("head",)) -> bool:
    """Whether a place is frozen; `frozen` and `new` as in `parameter_groups`."""
    return is_at(place, [name for name in frozen if name != BACKBONE]) or (BACKBONE in frozen and not is_at(place, new))


def scale_new_layers(factor: float, new: Sequence[str] = ("head",)) -> optax.GradientTransformation:
    """Multiplies the updates of new layers, which behind an optimizer's learning rate multiplies that rate.

    Args:
      factor: the learning rate of the new layers over that of the backbone.
      new: as in `parameter_groups`.
    """
    return optax.partition(
        {BACKBONE: optax.identity(), NEW: optax.scale(factor)}, lambda parameters: parameter_groups(parameters, new)
    )


def freeze(
    optimizer: optax.GradientTransformation, frozen: Sequence[str], new: Sequence[str] = ("head",)
) -> optax.GradientTransformation:
    """An optimizer for all but the frozen places, which get neither update nor weight decay nor memory in its state.

    Args:
      optimizer: for the other parameters; it does not see the frozen ones.
      frozen: as in `parameter_groups`.
      new: as in `parameter_groups`.
    """
    return optax.partition(
        {TRAINED: optimizer, FROZEN: optax.set_to_zero()},
        lambda parameters: trained_or_frozen(parameters, frozen, new),
    )


def trained_or_frozen(parameters, frozen: Sequence[str], new: Sequence[str] = ("head",)):
    """`parameter_groups` with the new layers and the backbone as one group, "trained"; `new` counts for "backbone"."""
    groups = parameter_groups(parameters, new if BACKBONE in frozen else (), frozen)
    return jax.tree.map(lambda group: group if group == FROZEN else TRAINED, groups)
