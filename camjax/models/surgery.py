"""Fine-tuning surgery: a trained backbone with a new head."""

from flax import nnx

from camjax.models.base import CamModel
from camjax.models.head import PooledHead


def with_new_head(model: CamModel, num_classes: int, *, rngs: nnx.Rngs | None = None) -> CamModel:
    """The model with a new, untrained head, for fine-tuning its backbone on other classes.

    The weights of the backbone are copied, so that training either model leaves the other as it is. The new
    head has the pooling, dropout rate and mode (training or inference) of the old one.

    Args:
      model: a model with a pooled head, which is left as it was.
      num_classes: C of the new head. Where it equals that of the old one, the head is new all the same.
      rngs: random keys of the new head; `nnx.Rngs(0)` if None.

    Returns:
      A new model, without class names.

    Raises:
      ValueError: the head is not a global pooling and one dense layer, or num_classes is below 1.
    """
    old = getattr(model, "head", None)
    if not isinstance(old, PooledHead):
        raise ValueError(
            f"{type(model).__name__} has a head of type {type(old).__name__}: expected a PooledHead, a global pooling "
            "and one dense layer. Take a model of camjax.list_models()."
        )
    dropout = old.dropout
    head = PooledHead(
        old.kernel.shape[0],
        num_classes,
        pool=old.pool,
        dropout=0.0 if dropout is None else dropout.rate,
        rngs=nnx.Rngs(0) if rngs is None else rngs,
    )
    if dropout is not None:
        head.dropout.deterministic = dropout.deterministic
    created_as = model.created_as
    model = nnx.clone(model, arrays=True)
    model.head = head
    model.class_names = None
    model.created_as = None if created_as is None else {**created_as, "num_classes": num_classes}
    return model
