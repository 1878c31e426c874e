"""The head of fully connected layers that AlexNet and VGG classify with, which leaves no class activation maps."""

import jax
import jax.numpy as jnp
from flax import nnx


class FullyConnectedHead(nnx.Module):
    """Two hidden layers with ReLU and dropout, and a linear one, over the whole feature map (Krizhevsky et al. 2012).

    There is no `kernel` from features to classes, and so no class activation map: each hidden unit sees every place
    of the map at once.

    Args:
      map_size: (h, w) of the feature map; there is no other that it takes.
      num_features: K.
      num_classes: C.
      pool: only "gap", which is what a network is asked for where nothing is said; there is no pooling.
      hidden: units of either hidden layer.
      dtype: compute dtype of the hidden layers.
      rngs: random keys of the initial weights and of dropout.

    Attributes:
      fc6: `nnx.Linear` of the flattened map, K slowest, as in Caffe and PyTorch.
      fc7: `nnx.Linear`.
      fc8: `nnx.Linear` to the classes, in float32.
      num_classes: C.
      exact_cam: False.

    Raises:
      ValueError: another pool, or num_classes is below 1.
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        num_features: int,
        num_classes: int,
        *,
        pool: str = "gap",
        hidden: int = 4096,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if pool != "gap":
            raise ValueError(f"pool={pool!r}: fully connected layers follow no pooling. Leave pool out.")
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: expected at least one class.")
        he = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        lecun = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        in_features = map_size[0] * map_size[1] * num_features
        self.fc6 = nnx.Linear(in_features, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.fc7 = nnx.Linear(hidden, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.fc8 = nnx.Linear(hidden, num_classes, dtype=jnp.float32, kernel_init=lecun, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.map_size = tuple(map_size)
        self.num_classes = num_classes

    @property
    def exact_cam(self) -> bool:
        """False: there are no maps."""
        return False

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) features -> (B, C) float32 logits.

        Raises:
          ValueError: (h, w) is not `map_size`.
        """
        if features.shape[1:3] != self.map_size:
            raise ValueError(
                f"a feature map of {features.shape[1]} x {features.shape[2]} cells: fully connected layers expect "
                f"{self.map_size[0]} x {self.map_size[1]}. Give images of the network's input_size."
            )
        x = features.transpose(0, 3, 1, 2).reshape(len(features), -1)
        x = self.dropout(nnx.relu(self.fc6(x)))
        x = self.dropout(nnx.relu(self.fc7(x)))
        return self.fc8(x)
