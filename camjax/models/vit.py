"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929) and their relatives, as timm defines them.

An image is cut into patches, and each becomes a token; other tokens that belong to no place stand before them: the
class token, DeiT's distillation token (Touvron et al. 2021, arXiv:2012.12877) and registers (Darcet et al. 2024,
arXiv:2309.16588). Stochastic depth, which only training from scratch needs, is left out. How tokens become classes
decides which maps there are:

- `AveragedTokens`: the patches' tokens are averaged in front of the dense layer, as in any network with global average
  pooling. The class activation map is exact.
- `ClassToken`: the class token alone goes on to the dense layer, or with the mean of the patches (DINOv2, Oquab et al.
  2024, arXiv:2304.07193). There is no exact map. Of the last block, the patches' tokens reach the class token through
  its attention alone: so the last feature map, on which methods such as Grad-CAM work, is what the last block's first
  LayerNorm makes of the patches. What the last block makes of them has no part in the classes. Trained by TS-CAM
  (`camjax.models.wsol.tscam`) the patches decide, and the class token's attention is a part of the map.
- `AttentionPooling`: a learned query attends to the tokens (SigLIP, Zhai et al. 2023, arXiv:2303.15343). The last
  feature map is what the query attends to.

Other methods look at the attention itself: the output of the layer `blocks.N.attention.weights` is that of block N,
(B, heads, T, T), of each token (second to last axis) to each other. `other_tokens` of the T tokens come first, and
`grid` says how the others lie.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.errors import InputError
from camjax.models.base import IMAGENET_INPUT, CamModel, InputRule
from camjax.models.convnext import norm_of_pooled
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import conv2d, exact_gelu
from camjax.models.spec import ModelSpec, WeightsSource
from camjax.models.vit_blocks import (
    SIZES,
    Block,
    narrow,
    quick_gelu,
    resampled_positions,
    token_layernorm,
)
from camjax.models.vit_heads import QueryHead, TokenHead
from camjax.models.vit_names import tensor_names


class VisionTransformer(CamModel):
    """What all of these networks have in common. Map: image side / patch side, rounded down.

    Args:
      size: of `SIZES`.
      patch: side of a patch in pixels.
      side: of the images in pixels that the network was made for. For other images the positions are interpolated.
      class_token, distillation_token, registers: the other tokens.
      positions_of_others: whether these have learned positions as well.
      norm_first: whether a LayerNorm follows the positions, and patches have no bias, as in CLIP.
      layer_scale, activation: see `Block`.
      epsilon: of the LayerNorms.
      texts: of networks that were trained with texts, whether the dense layer of the head leads to the texts'
        embeddings ("projected"), or what it takes is compared with them ("direct").
      cam_variant: as in `CamModel`.
      input_rule: how images are normalized.
      dtype, rngs: as in `camjax.create_model`.

    Attributes:
      blocks: `nnx.List` of `Block`.
      other_tokens: number of tokens that stand before those of the patches, in this order: class token, distillation
        token, registers.
    """

    def __init__(
        self,
        size: str,
        patch: int,
        side: int = 224,
        *,
        class_token: bool = True,
        distillation_token: bool = False,
        registers: int = 0,
        positions_of_others: bool = True,
        norm_first: bool = False,
        layer_scale: float | None = None,
        activation: Callable = exact_gelu,
        epsilon: float = 1e-6,
        texts: Literal["projected", "direct"] | None = None,
        cam_variant: str | None = None,
        input_rule: InputRule,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(input_size=(side, side), stride=patch, dtype=dtype, **input_rule)
        self.size, self.texts = SIZES[size], texts
        if cam_variant is not None:
            self.cam_variant = cam_variant
        width = self.size.width
        self.patches = conv2d(
            3, width, patch, patch, use_bias=not norm_first, kernel_init=narrow, dtype=dtype, rngs=rngs
        )

        def token(count: int) -> nnx.Param | None:
            return nnx.Param(narrow(rngs.params(), (1, count, width))) if count else None

        self.class_token = token(class_token)
        self.distillation_token = token(distillation_token)
        self.registers = token(registers)
        self.other_tokens = class_token + distillation_token + registers
        self.positions_of_others = positions_of_others
        positions = (side // patch) ** 2 + positions_of_others * self.other_tokens
        self.positions = nnx.Param(narrow(rngs.params(), (1, positions, width)))
        self.norm_first = token_layernorm(width, epsilon, rngs) if norm_first else None
        options: dict[str, Any] = {
            "layer_scale": layer_scale,
            "activation": activation,
            "epsilon": epsilon,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.blocks = nnx.List([Block(self.size, **options) for _ in range(self.size.depth)])
        self.norm = token_layernorm(width, epsilon, rngs)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w): how many patches an image of (H, W) pixels has from top to bottom, and from left to right."""
        # As a convolution counts, of sizes that a program leaves open too.
        rows, columns = ((side - self.stride) // self.stride + 1 for side in (height, width))
        return rows, columns

    def embed(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, T, K), what the first block takes."""
        grid = self.grid(*x.shape[1:3])
        tokens = self.patches(x).reshape(x.shape[0], -1, self.size.width)
        positions = resampled_positions(self.positions[...], grid, self.other_tokens * self.positions_of_others)
        others = [
            jnp.broadcast_to(token[...].astype(self.dtype), (x.shape[0], *token.shape[1:]))
            for token in (self.class_token, self.distillation_token, self.registers)
            if token is not None
        ]
        positions = jnp.broadcast_to(positions.astype(self.dtype), (x.shape[0], *positions.shape[1:]))
        if self.positions_of_others:
            tokens = jnp.concatenate([*others, tokens], axis=1) + positions
        else:
            tokens = jnp.concatenate([*others, tokens + positions], axis=1)
        return tokens if self.norm_first is None else self.norm_first(tokens).astype(self.dtype)

    def encode(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, T, K), what the last block gives."""
        tokens = self.embed(x)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def as_map(self, tokens: jax.Array, images: jax.Array) -> jax.Array:
        """The patches' tokens, (B, T, K) -> (B, h, w, K), of images (B, H, W, 3)."""
        return tokens[:, self.other_tokens :].reshape(tokens.shape[0], *self.grid(*images.shape[1:3]), -1)

    @property
    def last_norm(self) -> str:
        """The path of the last block's input norm, the last layer at which patches count in all of these networks."""
        return f"blocks.{len(self.blocks) - 1}.norm1"

    def counts_at(self, layer: str) -> bool:
        """Whether the classes depend on what the patches' tokens are at a layer, given by its path."""
        return True

    def shares(self, count: int) -> jax.Array:
        """(T,) float32: the share of each of T tokens in what the head reads."""
        raise NotImplementedError

    def logits_of(self, token: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """(B, K) float32, what the last block gives, the same for all tokens -> (B, C) float32 logits."""
        raise NotImplementedError

    def block_logits(self, images: jax.Array) -> jax.Array:
        """The logits of the mean token after each block, (B, depth, C), whose gradients go through that block alone.

        They are what LeGrad explains, see `camjax.attribution.legrad`.

        Args:
          images: as `features` takes them.
        """
        tokens, found = self.embed(self.normalized(images)), []
        for block in self.blocks:
            tokens = block(jax.lax.stop_gradient(tokens))
            found.append(self.logits_of(tokens.astype(jnp.float32).mean(1), self.grid(*images.shape[1:3])))
        return jnp.stack(found, axis=1)


class AveragedTokens(VisionTransformer):
    """The patches' tokens are averaged: the class activation map is exact.

    timm's LayerNorm stands either before the average, or behind it (`fc_norm`). There it is applied to the map, as in
    `camjax.models.convnext`: the logits are the same, and the features differ from those of other implementations.

    Args:
      num_classes, dtype, rngs: as in `camjax.create_model`.
      pool: "gap" or "gmp"; under "gmp", a LayerNorm behind the average takes mean and deviation of the averaged
        features.
      norm_behind: whether the last LayerNorm stands behind the average.
      **options: of `VisionTransformer`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", norm_behind: bool = True, **options):
        super().__init__(**options)
        self.norm_behind = norm_behind
        self.head = PooledHead(self.size.width, num_classes, pool=pool, rngs=options["rngs"])

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, K)."""
        tokens = self.encode(x)
        if self.norm_behind:
            return norm_of_pooled(self.norm, self.as_map(tokens, x)).astype(self.dtype)
        return self.as_map(self.norm(tokens), x).astype(self.dtype)

    def shares(self, count: int) -> jax.Array:
        """The same of each patch."""
        return (jnp.arange(count) >= self.other_tokens).astype(jnp.float32) / (count - self.other_tokens)

    def logits_of(self, token: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """See `VisionTransformer`."""
        return self.head(self.norm(token)[:, None, None])


class ClassToken(VisionTransformer):
    """The class token decides. The last feature map is that of the last block's first LayerNorm.

    Args:
      num_classes, dtype, rngs: as in `camjax.create_model`.
      pool: only "gap", the default of `create_model`; there is no pooling.
      mean_too: whether the mean of the patches' tokens goes on to the dense layer as well.
      **options: of `VisionTransformer`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", mean_too: bool = False, **options):
        _check_no_pool(pool)
        super().__init__(**options)
        self.head = TokenHead(
            self.size.width,
            num_classes,
            other_tokens=self.other_tokens,
            mean_too=mean_too,
            distilled=self.distillation_token is not None,
            rngs=options["rngs"],
        )

    def counts_at(self, layer: str) -> bool:
        """Not after the last block's attention, unless the head takes the mean of the patches as well."""
        last = self.last_norm.removesuffix(".norm1")
        after = layer == "norm" or layer == last or layer.startswith(f"{last}.")
        before = layer in (self.last_norm, f"{last}.attention.qkv")
        return before or not after or not isinstance(self.head, TokenHead) or self.head.mean_too

    def shares(self, count: int) -> jax.Array:
        """The class token's, half of it with another token or the patches beside it; with TS-CAM the patches' alone."""
        token = jnp.arange(count)
        patches = token >= self.other_tokens
        if not isinstance(self.head, TokenHead):
            return patches.astype(jnp.float32) / (count - self.other_tokens)
        second = patches if self.head.mean_too else token == (0 if self.distillation_token is None else 1)
        return ((token == 0).astype(jnp.float32) + second.astype(jnp.float32) / second.sum(dtype=jnp.float32)) / 2

    def logits_of(self, token: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """See `VisionTransformer`."""
        token = self.norm(token)
        if isinstance(self.head, TokenHead):
            alike = jnp.broadcast_to(token[:, None], (token.shape[0], self.other_tokens + 1, token.shape[-1]))
            return self.head(alike)
        places = jnp.broadcast_to(token[:, None, None], (token.shape[0], *grid, token.shape[-1]))
        return self.head(jnp.pad(places, ((0, 0), (0, 0), (0, 0), (0, 1))))

    def with_attention(self, x: jax.Array) -> jax.Array:
        """What TS-CAM's head takes: the last feature map, and the class token's attention as one more channel.

        Args:
          x: (B, H, W, 3) normalized images.

        Returns:
          (B, h, w, K + 1) float32: the patches' tokens after the last LayerNorm; the attention that the class token
          pays to each, averaged over all blocks and heads.
        """
        kept: list[jax.Array] = []
        tokens = self.embed(x)
        for block in self.blocks:
            tokens = block(tokens, kept=kept)
        paid = jnp.stack([weights[:, :, 0].astype(jnp.float32).mean(1) for weights in kept]).mean(0)
        return jnp.concatenate([self.as_map(self.norm(tokens), x), self.as_map(paid[..., None], x)], axis=-1)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, K); with TS-CAM `with_attention`, which its head takes alone."""
        return self._last(x)[0]

    def split(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """The last feature map (B, h, w, K), the same of the other tokens (B, P, K), and what both are of (B, T, K)."""
        features, *around = self._last(self.normalized(images))
        return self.at("features", features), *around

    def _last(self, x: jax.Array) -> tuple[jax.Array, ...]:
        if not isinstance(self.head, TokenHead):
            return (self.with_attention(x),)
        tokens = self.embed(x)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        normed = self.blocks[-1].norm1(tokens).astype(self.dtype)
        return self.as_map(normed, x), normed[:, : self.other_tokens], tokens

    def finish(self, features: jax.Array, *around: jax.Array) -> jax.Array:
        """What `split` gives -> (B, C) float32 logits."""
        if not around:
            return self.head(features)
        others, tokens = around
        patches = features.reshape(features.shape[0], -1, features.shape[-1])
        normed = jnp.concatenate([others, patches.astype(others.dtype)], axis=1)
        assert isinstance(self.head, TokenHead)
        wanted = None if self.head.mean_too else self.other_tokens
        tokens = self.blocks[-1](tokens, normed, wanted)
        return self.head(self.norm(tokens))


class AttentionPooling(VisionTransformer):
    """A learned query attends to the patches' tokens, and decides. The last feature map is that of the last LayerNorm.

    Args:
      num_classes, dtype, rngs: as in `camjax.create_model`.
      pool: only "gap", the default of `create_model`; there is no other pooling.
      **options: of `VisionTransformer`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", **options):
        _check_no_pool(pool)
        super().__init__(**options)
        self.head = QueryHead(self.size, num_classes, dtype=self.dtype, rngs=options["rngs"])

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, K)."""
        return self.as_map(self.norm(self.encode(x)), x).astype(self.dtype)


def reads_attention(model: Any) -> bool:
    """Whether methods that read attention know what a model's head reads: a class token, or averaged tokens."""
    return isinstance(model, AveragedTokens | ClassToken)


def _check_no_pool(pool: str) -> None:
    if pool != "gap":
        raise InputError(
            f"pool={pool!r}: the class token, or a learned query, takes the place of pooling. Leave pool out, or take "
            "a network that averages its tokens."
        )


# timm's normalization of Google's and of its own transformers, and that of CLIP.
_HALF: InputRule = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "channel_order": "rgb"}
_CLIP: InputRule = {
    "mean": (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255),
    "std": (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255),
    "channel_order": "rgb",
}


def _hub(name: str, version: str, **options) -> WeightsSource:
    """Weights by timm on the Hugging Face Hub."""
    return WeightsSource("timm", name, address=f"hf://timm/{name}.{version}", **options)


def _spec(
    build: type[VisionTransformer],
    name: str,
    *weights: WeightsSource,
    num_classes: int = 1000,
    new_layers: tuple[str, ...] = ("head",),
    look_alikes: Mapping[str, str] = MappingProxyType({}),
    **options,
) -> ModelSpec:
    return ModelSpec(
        name,
        functools.partial(build, **{"patch": 16, "input_rule": _HALF, **options}),
        num_classes,
        weights=weights,
        tensor_names=tensor_names(averaged=build is AveragedTokens, queried=build is AttentionPooling, **options),
        class_layer="head" if build is AveragedTokens else "head.dense",
        look_alikes=look_alikes,
        new_layers=new_layers,
    )


def _vit(size: str, patch: int, version: str) -> tuple[ModelSpec, ModelSpec]:
    """Dosovitskiy et al.'s network, and timm's with `global_pool="avg"`: it has a class token too, not averaged."""
    name, averaged = f"vit_{size}_patch{patch}_224", f"vit_{size}_patch{patch}_avg_224"
    own = WeightsSource(None, f"{averaged} (timm's with global_pool='avg')")
    backbone = _hub(name, version, backbone_only=True)
    new = ("norm", "head")
    return (
        _spec(ClassToken, name, _hub(name, version), size=size, patch=patch, cam_variant=averaged),
        _spec(AveragedTokens, averaged, own, backbone, size=size, patch=patch, new_layers=new),
    )


def _with_registers(size: str, count: int, version: str) -> ModelSpec:
    """A network of timm with averaged tokens and registers, and no class token."""
    name = f"vit_{size}_patch16_reg{count}_gap_256"
    return _spec(
        AveragedTokens,
        name,
        _hub(name, version),
        size=size,
        side=256,
        class_token=False,
        registers=count,
        positions_of_others=False,
        layer_scale=1e-5,
    )


def _deit(size: str, distilled: bool) -> ModelSpec:
    name = f"deit_{size}{'_distilled' * distilled}_patch16_224"
    return _spec(
        ClassToken,
        name,
        _hub(name, "fb_in1k"),
        size=size,
        distillation_token=distilled,
        cam_variant=f"vit_{size}_patch16_avg_224",
        input_rule=IMAGENET_INPUT,
    )


def _deit3(size: str) -> ModelSpec:
    name = f"deit3_{size}_patch16_224"
    return _spec(
        ClassToken,
        name,
        _hub(name, "fb_in22k_ft_in1k"),
        size=size,
        positions_of_others=False,
        layer_scale=1e-6,
        input_rule=IMAGENET_INPUT,
    )


def _dinov2(size: str, registers: int) -> ModelSpec:
    name = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    return _spec(
        ClassToken,
        name,
        WeightsSource(None, f"{name} with a dense layer on class token and mean"),
        _hub(name, "lvd142m", data="LVD-142M", backbone_only=True),
        size=size,
        patch=14,
        side=518,
        registers=registers,
        positions_of_others=not registers,
        layer_scale=1e-5,
        mean_too=True,
        input_rule=IMAGENET_INPUT,
    )


def _clip(patch: int, weights: str, data: str, *, quick: bool) -> ModelSpec:
    """CLIP's image tower: that of OpenAI, or those that were trained later, with the exact GELU."""
    names = [f"vit_base_patch{patch}_{kind}_224" for kind in ("clip", "clip_quickgelu")]
    name, other = reversed(names) if quick else names
    return _spec(
        ClassToken,
        name,
        WeightsSource("timm", name, data=data, address=weights, num_classes=512),
        num_classes=512,
        size="base",
        patch=patch,
        norm_first=True,
        activation=quick_gelu if quick else exact_gelu,
        epsilon=1e-5,
        input_rule=_CLIP,
        texts="projected",
        # By timm's name of a tensor, and by OpenAI's and OpenCLIP's.
        look_alikes=dict.fromkeys(("patch_embed.proj.weight", "visual.conv1.weight"), other),
    )


def _siglip(build: type[VisionTransformer], kind: str, new_layer: str, **options) -> ModelSpec:
    name = f"vit_base_patch16_{kind}_224"
    return _spec(
        build,
        name,
        WeightsSource(None, f"{name} with a dense layer"),
        _hub(name, "v2_webli", data="WebLI", backbone_only=True),
        size="base",
        class_token=False,
        new_layers=(new_layer,),
        **options,
    )


SPECS = (
    *_vit("tiny", 16, "augreg_in21k_ft_in1k"),
    *_vit("small", 16, "augreg_in21k_ft_in1k"),
    *_vit("small", 32, "augreg_in21k_ft_in1k"),
    *_vit("base", 16, "augreg2_in21k_ft_in1k"),
    *_vit("base", 32, "augreg_in21k_ft_in1k"),
    _with_registers("wee", 1, "sbb_in1k"),
    _with_registers("little", 4, "sbb_in1k"),
    _with_registers("medium", 4, "sbb_in12k_ft_in1k"),
    _with_registers("betwixt", 4, "sbb_in12k_ft_in1k"),
    *(_deit(size, distilled) for size in ("tiny", "small", "base") for distilled in (False, True)),
    *(_deit3(size) for size in ("small", "medium", "base")),
    *(_dinov2(size, registers) for size in ("small", "base") for registers in (0, 4)),
    *(
        _clip(patch, f"hf://timm/vit_base_patch{patch}_clip_224.{version}", data, quick=quick)
        for patch in (16, 32)
        for version, data, quick in (("laion2b", "LAION-2B", False), ("openai", "WIT", True))
    ),
    _siglip(AttentionPooling, "siglip", "head.dense", texts="direct"),
    _siglip(AveragedTokens, "siglip_gap", "head", norm_behind=False),
)
