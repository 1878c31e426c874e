"""Swin Transformer (Liu et al. 2021, arXiv:2103.14030).

The definition is timm's `swin_tiny_patch4_window7_224`; stochastic depth, which only training from scratch needs, is
left out. Images are normalized with ImageNet's mean and deviation. Its head averages the places of the last map, behind
a LayerNorm of each place, so the mean of a class's map plus its bias is its logit.

For images of other sizes, windows and shifts stay those of 224 x 224, and maps are filled up with zeros to whole
windows, as timm does with `dynamic_img_size=True`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import conv2d, exact_gelu, narrow_normal, softmax_times
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import CONV, DENSE, Rule, Table, layer, layernorm

# (blocks, features, heads) of the stages of Swin-T: Liu et al. 2021, section 3.3.
STAGES = ((2, 96, 3), (2, 192, 6), (6, 384, 12), (2, 768, 24))

WINDOW = 7  # side in cells
SHIFT = 3  # of every second block's windows, in cells; none where the map of 224 x 224 pixels is one window
_MASKED = -100.0  # added to the attention between cells that the shift has brought side by side

_LayerNorm = functools.partial(nnx.LayerNorm, epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False)


class WindowAttention(nnx.Module):
    """Self-attention among the cells of each window, with a bias for each relative position (Liu et al., eq. 4).

    Args:
      features: K.
      heads: number of attention heads.
      dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(self, features: int, heads: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "kernel_init": narrow_normal, "rngs": rngs}
        self.qkv = nnx.Linear(features, 3 * features, **options)
        self.project = nnx.Linear(features, features, **options)
        self.position_bias = nnx.Param(narrow_normal(rngs.params(), (heads, (2 * WINDOW - 1) ** 2)))
        self.heads = heads

    def __call__(self, windows: jax.Array, regions: jax.Array | None) -> jax.Array:
        """The result of attention.

        Args:
          windows: (B, N, 49, K), in the compute dtype.
          regions: (N, 49) int, of which each cell attends to its own alone; None for one region.

        Returns:
          (B, N, 49, K).
        """
        batch, count, cells, features = windows.shape
        q, k, v = self.qkv(windows).reshape(batch, count, cells, 3, self.heads, -1).transpose(3, 0, 1, 4, 2, 5)
        scores = jnp.matmul(q * q.shape[-1] ** -0.5, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
        scores = scores + self.position_bias[...][:, _relative_positions()][None, None]
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            scores = scores + jnp.where(apart, _MASKED, 0.0).astype(jnp.float32)[None]
        found = softmax_times(scores, v).swapaxes(2, 3)
        return self.project(found.reshape(batch, count, cells, features))


@functools.cache
def _relative_positions() -> np.ndarray:
    """(49, 49) int32: for each pair of a window's cells, which of its 13 x 13 relative positions theirs is."""
    rows, columns = np.divmod(np.arange(WINDOW**2, dtype=np.int32), WINDOW)
    down, right = (places[:, None] - places[None] + WINDOW - 1 for places in (rows, columns))
    return down * (2 * WINDOW - 1) + right


class Block(nnx.Module):
    """Attention in windows and two dense layers at every place, each behind a LayerNorm (Liu et al., figure 3b).

    Args:
      features: K.
      heads: number of attention heads.
      shift: by which the windows are shifted down and right, in cells.
      dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(self, features: int, heads: int, shift: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.norm1 = _LayerNorm(features, rngs=rngs)
        self.attention = WindowAttention(features, heads, **options)
        self.norm2 = _LayerNorm(features, rngs=rngs)
        self.expand = nnx.Linear(features, 4 * features, kernel_init=narrow_normal, **options)
        self.project = nnx.Linear(4 * features, features, kernel_init=narrow_normal, **options)
        self.shift = shift
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K)."""
        x = x + self._in_windows(self.norm1(x).astype(self.dtype))
        y = self.expand(self.norm2(x).astype(self.dtype))
        return x + self.project(exact_gelu(y))

    def _in_windows(self, x: jax.Array) -> jax.Array:
        batch, height, width, features = x.shape
        rows, columns = -(-height // WINDOW), -(-width // WINDOW)
        x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
        x = jnp.pad(x, ((0, 0), (0, rows * WINDOW - height), (0, columns * WINDOW - width), (0, 0)))
        windows = x.reshape(batch, rows, WINDOW, columns, WINDOW, features).transpose(0, 1, 3, 2, 4, 5)
        windows = windows.reshape(batch, rows * columns, WINDOW**2, features)
        windows = self.attention(windows, _regions(rows, columns) if self.shift else None)
        x = windows.reshape(batch, rows, columns, WINDOW, WINDOW, features).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * WINDOW, columns * WINDOW, features)[:, :height, :width]
        return jnp.roll(x, (self.shift, self.shift), (1, 2))


def _regions(rows: int, columns: int) -> jax.Array:
    """(rows * columns, 49) int: which part of the map each cell of each window has come from by the shift."""

    def parts(windows):
        places = jnp.arange(windows * WINDOW)
        last, moved = (windows - 1) * WINDOW, windows * WINDOW - SHIFT
        return ((places >= last).astype(jnp.int32) + (places >= moved).astype(jnp.int32)).reshape(windows, WINDOW)

    down, right = parts(rows)[:, None, :, None], parts(columns)[None, :, None, :]
    return (3 * down + right).reshape(rows * columns, WINDOW**2)


class Merge(nnx.Module):
    """LayerNorm and a dense layer of each 2 x 2 cells; an odd side is filled up with zeros."""

    def __init__(self, in_features: int, out_features: int, *, dtype, rngs: nnx.Rngs):
        self.norm = _LayerNorm(4 * in_features, rngs=rngs)
        self.dense = nnx.Linear(
            4 * in_features, out_features, use_bias=False, kernel_init=narrow_normal, dtype=dtype, rngs=rngs
        )
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, ceil(H / 2), ceil(W / 2), K_out)."""
        batch, height, width, features = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, features).transpose(0, 1, 3, 4, 2, 5)
        return self.dense(self.norm(x.reshape(*x.shape[:3], 4 * features)).astype(self.dtype))


class SwinTiny(CamModel):
    """Swin-T with a pooled head. Map: input side / 4, rounded down, / 8. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, dtype=dtype, **IMAGENET_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        in_features = STAGES[0][1]
        self.stem = conv2d(3, in_features, 4, 4, kernel_init=narrow_normal, **options)
        self.stem_norm = _LayerNorm(in_features, rngs=rngs)
        stages: list[nnx.List] = []
        merges = []
        for stage, (depth, features, heads) in enumerate(STAGES):
            if stage:
                merges.append(Merge(in_features, features, **options))
            shift = SHIFT if self.input_size[0] >> stage + 2 > WINDOW else 0
            stages.append(nnx.List([Block(features, heads, i % 2 * shift, **options) for i in range(depth)]))
            in_features = features
        self.stages, self.merges = nnx.List(stages), nnx.List(merges)
        self.norm = _LayerNorm(in_features, rngs=rngs)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 768), h = ceil(floor(H / 4) / 8), w likewise."""
        x = self.stem_norm(self.stem(x)).astype(self.dtype)
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.merges[i - 1](x)
            for block in blocks:
                x = block(x)
        return self.norm(x).astype(self.dtype)


def _block_names(block: str, place: str, dense: tuple[str, str]) -> Table:
    """The rules of a block, by the patterns of its name and of those of its two dense layers."""
    return (
        *layernorm(rf"{block}\.norm1", f"{place}.norm1"),
        *layernorm(rf"{block}\.norm2", f"{place}.norm2"),
        *layer(rf"{block}\.attn\.qkv", f"{place}.attention.qkv", DENSE),
        *layer(rf"{block}\.attn\.proj", f"{place}.attention.project", DENSE),
        Rule(rf"{block}\.attn\.relative_position_bias_table", f"{place}.attention.position_bias", DENSE),
        *layer(rf"{block}\.mlp\.{dense[0]}", f"{place}.expand", DENSE),
        *layer(rf"{block}\.mlp\.{dense[1]}", f"{place}.project", DENSE),
    )


def _merge_names(name: str, place: str) -> Table:
    return *layernorm(rf"{name}\.norm", f"{place}.norm"), Rule(
        rf"{name}\.reduction\.weight", f"{place}.dense.kernel", DENSE
    )


_TIMM = (
    *layer(r"patch_embed\.proj", "stem", CONV),
    *layernorm(r"patch_embed\.norm", "stem_norm"),
    *_block_names(r"layers\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", ("fc1", "fc2")),
    *(rule for i in range(3) for rule in _merge_names(rf"layers\.{i + 1}\.downsample", f"merges.{i}")),
    *layer(r"head\.fc", "head", DENSE),
)

_TORCHVISION = (
    *layer(r"features\.0\.0", "stem", CONV),
    *layernorm(r"features\.0\.2", "stem_norm"),
    # torchvision numbers the stages and the merging between them in turn.
    *(
        rule
        for stage in range(4)
        for rule in _block_names(rf"features\.{2 * stage + 1}\.(\d+)", rf"stages.{stage}.\1", ("0", "3"))
    ),
    *(rule for i in range(3) for rule in _merge_names(rf"features\.{2 * i + 2}", f"merges.{i}")),
    Rule(r".*\.relative_position_index", None),
    *layer("head", "head", DENSE),
)

_WEIGHTS = (
    WeightsSource("timm", "swin_tiny_patch4_window7_224", address="hf://timm/swin_tiny_patch4_window7_224.ms_in1k"),
    torchvision("swin_t", "swin_t-704ceda3.pth"),
)

SPECS = (
    ModelSpec(
        "swin_tiny_patch4_window7_224",
        SwinTiny,
        weights=_WEIGHTS,
        tensor_names=(*_TIMM, *_TORCHVISION, *layernorm("norm", "norm")),
    ),
)
