"""Fine-tuning surgery: a trained backbone with a new head."""

from flax import nnx

from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.head import PooledHead
from camjax.models.registry import create_model
from camjax.models.shapes import model_shapes


def with_new_head(model: CamModel, num_classes: int, *, rngs: nnx.Rngs | None = None) -> CamModel:
    """The model with a new, untrained head, for fine-tuning its backbone on other classes.

    The weights of the backbone are copied, so that training either model leaves the other as it is. The new head has
    the pooling, dropout rate and mode (training or inference) of the old one. In networks where another layer has one
    unit a class (the last of fully connected ones; the last convolution of NIN and SqueezeNet), that layer is new. The
    kernel of a new pooled head of K features has a variance of 1 / (3 K), as PyTorch's `Linear`.

    Args:
      model: a model with a pooled head, or one of `camjax.list_models()`; it is left as it was.
      num_classes: C of the new head, which is new even if C equals that of the old one.
      rngs: random keys of the new head; `nnx.Rngs(0)` if None.

    Returns:
      A new model, without class names.

    Raises:
      ValueError: the head is not a global pooling and one dense layer, and `create_model` did not make the model; or
        num_classes is below 1.
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    old = getattr(model, "head", None)
    if isinstance(old, PooledHead):
        return _with_pooled_head(model, old, num_classes, rngs)
    created_as = getattr(model, "created_as", None)
    if created_as is None:
        raise InputError(
            f"{type(model).__name__} has a head of type {type(old).__name__}: expected a PooledHead, a global pooling "
            "and one dense layer, or a model that camjax.create_model made."
        )
    return _with_new_class_layer(model, created_as, num_classes, rngs)


def _with_pooled_head(model: CamModel, old: PooledHead, num_classes: int, rngs: nnx.Rngs) -> CamModel:
    dropout = old.dropout
    rate = 0.0 if dropout is None else dropout.rate
    head = PooledHead(old.kernel.shape[0], num_classes, pool=old.pool, dropout=rate, rngs=rngs)
    head.kernel[...] /= 3**0.5  # from 1 / K: larger logits at the start made short fine-tuning end lower
    if dropout is not None and head.dropout is not None:
        head.dropout.deterministic = dropout.deterministic
    created_as = model.created_as
    model = nnx.clone(model, arrays=True)
    model.head = head
    model.class_names = None
    model.multi_label = False
    model.created_as = None if created_as is None else {**created_as, "num_classes": num_classes}
    return model


def _with_new_class_layer(model: CamModel, created_as: dict, num_classes: int, rngs: nnx.Rngs) -> CamModel:
    """A new model of the registry, with all of the old one's values but those whose shape depends on the classes."""
    shapes = [
        _variables(model_shapes(**{**created_as, "num_classes": created_as["num_classes"] + more})) for more in (0, 1)
    ]
    class_paths = {path for path, variable in shapes[0].items() if variable.shape != shapes[1][path].shape}
    new = create_model(**{**created_as, "num_classes": num_classes}, dtype=model.dtype, rngs=rngs)
    places = _variables(new)
    for path, variable in _variables(model).items():
        if path in places and path not in class_paths:
            places[path].set_value(variable[...].copy())
    mean_image = None if model.mean_image is None else model.mean_image[...]
    new.set_input_rule(**model.input_rule, mean_image=mean_image)
    new.input_size = model.input_size
    for (_, ours), (_, theirs) in zip(nnx.iter_modules(new), nnx.iter_modules(model), strict=True):
        for mode in ("deterministic", "use_running_average"):
            if hasattr(theirs, mode):
                setattr(ours, mode, getattr(theirs, mode))
    return new


def _variables(model: CamModel) -> dict[tuple, nnx.Variable]:
    """Parameters and BatchNorm statistics by their paths."""
    return {
        path: variable for path, variable in nnx.iter_graph(model) if isinstance(variable, nnx.Param | nnx.BatchStat)
    }
