"""The layers that backbones share: convolutions, a convolution with its BatchNorm, and folding the two together."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from camjax.models.batchnorm import BatchNorm
from camjax.models.conv import conv_general_dilated

Module = TypeVar("Module", bound=nnx.Module)


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None) -> jax.Array:
    """Normal kernel of variance 2 / fan_out, which keeps gradients at their scale (He et al. 2015, eq. 14).

    Drawn in a power-of-two length and cut on the host: almost every layer has a kernel shape of its own, and compiling
    one draw for each would take longer than the rest of building the network.

    Args:
      key: random key.
      shape: (kh, kw, K_in / groups, K_out).
      dtype: of the kernel.
      out_sharding: only None; initializers of flax take it.
    """
    size, fan_out = math.prod(shape), math.prod(shape[:-2]) * shape[-1]
    draw: jax.Array | np.ndarray = jax.random.normal(key, (1 << (size - 1).bit_length(),), dtype)
    if not isinstance(draw, jax.core.Tracer):
        draw = np.asarray(draw)
    return jnp.asarray(draw[:size].reshape(shape) * np.sqrt(2 / fan_out).astype(dtype))


def narrow_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None) -> jax.Array:
    """Normal kernel of deviation 0.02, as transformers and ConvNeXt start: He's, rescaled, which is drawn fast."""
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return he_normal(key, shape, dtype) * (0.02 * math.sqrt(fan_out / 2))


def conv2d(
    in_features: int,
    out_features: int,
    kernel_size: int | tuple[int, int],
    strides: int = 1,
    *,
    padding: str | int = 0,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Callable[..., jax.Array] = he_normal,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution that is fast on every platform, see `camjax.models.conv`.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size: k, for a k x k kernel; or (kh, kw).
      strides: in pixels, the same both ways.
      padding: "SAME" (TensorFlow's rule) or an int p for p zeros on each side (PyTorch's and Caffe's).
      groups: number of groups; K_in for a depthwise convolution.
      use_bias: whether a bias is added.
      kernel_init: draws the initial kernel; biases start as zeros.
      dtype: compute dtype; parameters are float32.
      rngs: random keys for the initial kernel.

    Returns:
      The layer, with `kernel` (kh, kw, K_in / groups, K_out) and, if it has one, `bias` (K_out,).
    """
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size,
        strides,
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


def relu(x: jax.Array) -> jax.Array:
    """`nnx.relu`: the same numbers and derivatives, by way of float32 where x is bfloat16 and the platform is a CPU.

    There jaxlib reads memory that nobody has written, since 0.11.2 and in 0.12.0.1, where one program takes two
    bfloat16 maxima with the same constant before a pooling, a mean or a maximum: features are NaN, or large. XLA hands
    such a program to YNNPACK as one piece, which is right in float32. `tests/models/test_layers.py` says when this can
    go.
    """
    if x.dtype != jnp.bfloat16:
        return nnx.relu(x)

    def by_float32(x):
        return nnx.relu(x.astype(jnp.float32)).astype(x.dtype)

    return jax.lax.platform_dependent(x, cpu=by_float32, default=nnx.relu)


def exact_gelu(x: jax.Array) -> jax.Array:
    """`x` times the share of a normal distribution below x, not its approximation by a hyperbolic tangent."""
    # By erf, as PyTorch does; `jax.nn.gelu` takes erfc, whose two branches are both computed.
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def softmax_times(scores: jax.Array, values: jax.Array) -> jax.Array:
    """`softmax(scores) @ values`, in a form that takes 0.7 of its time on CPUs: the product is divided by the sum.

    Args:
      scores: (..., N, M) float32.
      values: (..., M, d), in the compute dtype.

    Returns:
      (..., N, d), in the compute dtype.
    """
    shares = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    products = jnp.matmul(shares.astype(values.dtype), values)
    return (products / shares.sum(axis=-1, keepdims=True)).astype(values.dtype)


def avg_pool(x: jax.Array, size: int, strides: int, padding: str = "VALID") -> jax.Array:
    """The means over windows of size x size, with zeros outside of the image, as `nnx.avg_pool` counts them.

    That one divides by an array of integers, which `jax_numpy_dtype_promotion="strict"` refuses.
    """
    return nnx.pool(x, 0.0, jax.lax.add, (size, size), (strides, strides), padding) / size**2


class ConvBN(nnx.Module):
    """A convolution, BatchNorm and an activation.

    The convolution runs in `dtype`, BatchNorm in float32 on float32 statistics.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size, strides, padding, groups: as in `conv2d`.
      activation: applied last, or None.
      momentum: of the running statistics, `running = momentum * running + (1 - momentum) * batch`.
      epsilon: added to the variance.
      dtype: compute dtype; parameters are float32.
      rngs: random keys for the initial kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        strides: int = 1,
        *,
        padding: str | int = "SAME",
        groups: int = 1,
        activation: Callable[[jax.Array], jax.Array] | None = relu,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = conv2d(
            in_features,
            out_features,
            kernel_size,
            strides,
            padding=padding,
            groups=groups,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn: BatchNorm | None = BatchNorm(out_features, momentum=momentum, epsilon=epsilon, rngs=rngs)
        self.activation = activation
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out) in the compute dtype."""
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        if self.activation is not None:
            x = self.activation(x)
        return x.astype(self.dtype)


class SqueezeExcite(nnx.Module):
    """Each channel times a gate, which two dense layers compute from all channels' means (Hu et al. 2018, eq. 2-4).

    Args:
      features: K.
      squeezed: width of the layer between the two.
      activation: of that layer.
      gate: of the last layer, with values in 0..1.
      dtype: compute dtype; parameters are float32.
      rngs: random keys for the initial kernels.
    """

    def __init__(
        self,
        features: int,
        squeezed: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = relu,
        gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.reduce = nnx.Linear(features, squeezed, dtype=dtype, kernel_init=he_normal, rngs=rngs)
        self.expand = nnx.Linear(squeezed, features, dtype=dtype, kernel_init=he_normal, rngs=rngs)
        self.activation, self.gate = activation, gate

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K) in the dtype of x."""
        pooled = x.astype(jnp.float32).mean((1, 2))
        gates = self.gate(self.expand(self.activation(self.reduce(pooled))))
        return x * gates[:, None, None].astype(x.dtype)


def fold_batchnorm(model: Module) -> Module:
    """A copy of `model` for inference, with each `ConvBN`'s BatchNorm multiplied into its convolution.

    With `s = scale / sqrt(var + epsilon)` of the running statistics, `bn(conv(x)) = conv_{kernel * s}(x) +
    (bias - mean * s)`: the same function up to rounding, with one pass less over the feature map.

    Layers that compute in bfloat16 keep their weights in bfloat16, to which each of their calls would round them.

    Args:
      model: any module of NNX; it stays as it is.

    Returns:
      The copy.
    """
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ConvBN) and module.bn is not None:
            bn, conv = module.bn, module.conv
            scale, bias, mean, var = map(_numbers, (bn.scale, bn.bias, bn.mean, bn.var))
            factor = scale / np.sqrt(var + np.float32(bn.epsilon))
            conv.kernel = nnx.Param(jax.device_put(_numbers(conv.kernel) * factor))
            conv.bias = nnx.data(nnx.Param(jax.device_put(bias - mean * factor)))
            conv.use_bias, module.bn = True, None
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Conv | nnx.Linear) and module.dtype is not None:
            for weights in (module.kernel, module.bias):
                if weights is not None:
                    weights.set_value(weights[...].astype(module.dtype))
    return model


def _numbers(variable: nnx.Variable | None) -> np.ndarray:
    assert variable is not None, "ConvBN's layers have all of their variables"
    return np.asarray(variable[...])
