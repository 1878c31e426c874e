"""Parameter groups: new layers, the pretrained backbone, and frozen parameters."""

from collections.abc import Sequence

import jax
import optax

from camjax.errors import InputError

BACKBONE, NEW, FROZEN, TRAINED = "backbone", "new", "frozen", "trained"


def parameter_groups(parameters, new: Sequence[str] = ("head",), frozen: Sequence[str] = ()):
    """Labels each parameter as new, backbone or frozen.

    Fine-tuning gives layers that start from random weights a higher learning rate than the others, as Caffe does with
    `lr_mult: 10`, or trains only them.

    Args:
      parameters: a model, its state, or a tree of arrays with the same names, as optax gets it.
      new: places in the model whose parameters are new, each with everything below it: "head", "cam_conv",
        "layers.4.conv".
      frozen: places whose parameters are not trained, named as in `new`; "backbone" means all that is not new. A
        parameter in both is frozen.

    Returns:
      A tree of the same structure with "new", "backbone" or "frozen" instead of each array, as `optax.partition` takes
      its labels.

    Raises:
      ValueError: the model has no parameters at one of the places, or nothing is left to train.
    """
    named = {"new layers": [*new], "frozen": [name for name in frozen if name != BACKBONE]}
    found: set[tuple[str, str]] = set()

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
            raise InputError(
                f"{kind} {', '.join(map(repr, missing))}: the model has no parameters there. Its layers are "
                f"{', '.join(sorted(tops))}."
            )
    if frozen and set(jax.tree.leaves(groups)) == {FROZEN}:
        raise InputError(
            f"frozen {', '.join(map(repr, frozen))}: that is the whole model, so nothing is left to train."
        )
    return groups


def is_at(place: str, names: Sequence[str]) -> bool:
    """Whether a place such as "layers.4.conv.kernel" is one of `names`, or below one of them."""
    return any(f"{place}.".startswith(f"{name}.") for name in names)


def is_frozen(place: str, frozen: Sequence[str], new: Sequence[str] = ("head",)) -> bool:
    """Whether a place is frozen; `frozen` and `new` as in `parameter_groups`."""
    return is_at(place, [name for name in frozen if name != BACKBONE]) or (BACKBONE in frozen and not is_at(place, new))


def scale_new_layers(factor: float, new: Sequence[str] = ("head",)) -> optax.GradientTransformation:
    """Multiplies the updates of new layers; after an optimizer, that multiplies their learning rate.

    Args:
      factor: ratio of the new layers' learning rate to the backbone's.
      new: as in `parameter_groups`.
    """
    return optax.partition(
        {BACKBONE: optax.identity(), NEW: optax.scale(factor)}, lambda parameters: parameter_groups(parameters, new)
    )


def freeze(
    optimizer: optax.GradientTransformation, frozen: Sequence[str], new: Sequence[str] = ("head",)
) -> optax.GradientTransformation:
    """Returns an optimizer that leaves the frozen places without update, weight decay or state.

    Args:
      optimizer: for the other parameters; it never sees the frozen ones.
      frozen: as in `parameter_groups`.
      new: as in `parameter_groups`.
    """
    return optax.partition(
        {TRAINED: optimizer, FROZEN: optax.set_to_zero()},
        lambda parameters: trained_or_frozen(parameters, frozen, new),
    )


def trained_or_frozen(parameters, frozen: Sequence[str], new: Sequence[str] = ("head",)):
    """Labels each parameter as trained or frozen, as `parameter_groups` does; `new` matters only for "backbone"."""
    groups = parameter_groups(parameters, new if BACKBONE in frozen else (), frozen)
    return jax.tree.map(lambda group: group if group == FROZEN else TRAINED, groups)
