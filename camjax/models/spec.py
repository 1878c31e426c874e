"""What the registry knows of a network."""

from collections.abc import Callable
from dataclasses import dataclass

from camjax.models.base import CamModel


@dataclass(frozen=True)
class ModelSpec:
    """A registered model.

    Attributes:
      name: registry name.
      build: `build(num_classes=, pool=, dtype=, rngs=) -> CamModel`.
      num_classes: C where none is asked for.
      weights: where pretrained weights come from, in words; None where there are none.
      weights_module: the module that knows the family's weight files, imported when one is loaded: its `TABLE` places
        their entries in the model, and its `PACKAGED`, if it has one, maps names of models to functions that return
        the path of weights installed by pip. None where nobody publishes any.
      module: the module that registered it by `camjax.register_model`; None for camjax's own.
      source: what `camjax.register_model` was given; None for camjax's own.
      new_layers: places in the model that start new where a backbone trained without them is taken over: the head, and
        what the surgery on the original network put in front of it.
    """

    name: str
    build: Callable[..., CamModel]
    num_classes: int
    weights: str | None = None
    weights_module: str | None = None
    new_layers: tuple[str, ...] = ("head",)
    module: str | None = None
    source: Callable | None = None

    @property
    def full_name(self) -> str:
        """The name that finds it in any process: `MODULE:NAME` if a module that can be imported registers it."""
        return self.name if self.module in (None, "__main__", "__mp_main__") else f"{self.module}:{self.name}"
