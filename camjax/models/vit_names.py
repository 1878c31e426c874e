"""Names and forms of a vision transformer's weights in the files of timm, OpenAI and OpenCLIP."""

import functools
import math
import warnings

import jax.numpy as jnp
import numpy as np

from camjax.models.tensor_names import CONV, DENSE, Rule, Table, layer, layernorm
from camjax.models.vit_blocks import resampled_positions


def fitting_positions(found: np.ndarray, shape: tuple[int, ...], *, others: int) -> np.ndarray:
    """A file's positions for the grid of the network, as timm makes them; any others as they are, for the error."""
    if found.ndim != 3 or found.shape[2] != shape[2]:
        return found
    before, after = (math.isqrt(max(0, count - others)) for count in (found.shape[1], shape[1]))
    if found.shape[:2] != (1, others + before**2):
        return found
    if after != before:
        warnings.warn(
            f"The file's positions are those of {before} x {before} patches. They were interpolated to {after} x "
            f"{after}, as timm does.",
            stacklevel=5,
        )
    return np.asarray(resampled_positions(jnp.asarray(found, jnp.float32), (after, after), others))


_BLOCK, _PLACE = r"blocks\.(\d+)", r"blocks.\1"


def tensor_names(
    *,
    averaged: bool,
    queried: bool,
    class_token: bool = True,
    distillation_token: bool = False,
    registers: int = 0,
    positions_of_others: bool = True,
    norm_first: bool = False,
    norm_behind: bool = True,
    layer_scale: float | None = None,
    **_,
) -> Table:
    """The names of a transformer's weights in timm.

    Args:
      averaged: whether its tokens are averaged.
      queried: whether a learned query attends to them.
      class_token: whether there is one.
      distillation_token: whether there is one.
      registers: how many.
      positions_of_others: whether positions are added to these tokens as well.
      norm_first: whether a LayerNorm stands before the first block.
      norm_behind: whether one stands behind the average.
      layer_scale: None for no factors on the blocks' outputs.
    """
    patches = layer(r"patch_embed\.proj", "patches", CONV)
    others = positions_of_others * (class_token + distillation_token + registers)
    return (
        *(patches[:1] if norm_first else patches),
        Rule("pos_embed", "positions", fit=functools.partial(fitting_positions, others=others)),
        *((Rule("cls_token", "class_token"),) if class_token else ()),
        *((Rule("dist_token", "distillation_token"),) if distillation_token else ()),
        *((Rule("reg_token", "registers"),) if registers else ()),
        *(layernorm("norm_pre", "norm_first") if norm_first else ()),
        *layernorm(rf"{_BLOCK}\.norm1", f"{_PLACE}.norm1"),
        *layer(rf"{_BLOCK}\.attn\.qkv", f"{_PLACE}.attention.qkv", DENSE),
        *layer(rf"{_BLOCK}\.attn\.proj", f"{_PLACE}.attention.project", DENSE),
        *layernorm(rf"{_BLOCK}\.norm2", f"{_PLACE}.norm2"),
        *layer(rf"{_BLOCK}\.mlp\.fc1", f"{_PLACE}.expand", DENSE),
        *layer(rf"{_BLOCK}\.mlp\.fc2", f"{_PLACE}.project", DENSE),
        # timm's name of the factors, and that of DeiT-III's own files.
        *(() if layer_scale is None else (Rule(rf"{_BLOCK}\.(?:ls|gamma_)([12])(?:\.gamma)?", rf"{_PLACE}.scale\2"),)),
        *layernorm("fc_norm" if averaged and norm_behind else "norm", "norm"),
        *(_QUERY_NAMES if queried else ()),
        *layer("head", "head" if averaged else "head.dense", DENSE),
        *(layer("head_dist", "head.distilled", DENSE) if distillation_token else ()),
        *(_CLIP_NAMES if norm_first else ()),
    )


_CLIP_BLOCK = r"visual\.transformer\.resblocks\.(\d+)"

# OpenAI's and OpenCLIP's names, in files that have the tower of the texts as well. The projection has no bias.
_CLIP_NAMES = (
    Rule(r"visual\.conv1\.weight", "patches.kernel", CONV),
    Rule(r"visual\.class_embedding", "class_token", fit=np.reshape),
    Rule(
        r"visual\.positional_embedding",
        "positions",
        fit=lambda found, shape: fitting_positions(found[None] if found.ndim == 2 else found, shape, others=1),
    ),
    *layernorm(r"visual\.ln_pre", "norm_first"),
    *layernorm(rf"{_CLIP_BLOCK}\.ln_1", f"{_PLACE}.norm1"),
    Rule(rf"{_CLIP_BLOCK}\.attn\.in_proj_weight", f"{_PLACE}.attention.qkv.kernel", DENSE),
    Rule(rf"{_CLIP_BLOCK}\.attn\.in_proj_bias", f"{_PLACE}.attention.qkv.bias"),
    *layer(rf"{_CLIP_BLOCK}\.attn\.out_proj", f"{_PLACE}.attention.project", DENSE),
    *layernorm(rf"{_CLIP_BLOCK}\.ln_2", f"{_PLACE}.norm2"),
    *layer(rf"{_CLIP_BLOCK}\.mlp\.c_fc", f"{_PLACE}.expand", DENSE),
    *layer(rf"{_CLIP_BLOCK}\.mlp\.c_proj", f"{_PLACE}.project", DENSE),
    *layernorm(r"visual\.ln_post", "norm"),
    Rule(r"visual\.proj", "head.dense.kernel", zeros="head.dense.bias"),
    Rule(
        r"(?:transformer|token_embedding|ln_final|text)\..+|positional_embedding|text_projection|logit_(?:scale|bias)",
        None,
    ),
    Rule("input_resolution|context_length|vocab_size", None),
)

_QUERY_NAMES = (
    Rule(r"attn_pool\.latent", "head.query"),
    *layer(r"attn_pool\.q", "head.to_queries", DENSE),
    *layer(r"attn_pool\.kv", "head.to_keys_and_values", DENSE),
    *layer(r"attn_pool\.proj", "head.project", DENSE),
    *layernorm(r"attn_pool\.norm", "head.norm"),
    *layer(r"attn_pool\.mlp\.fc1", "head.expand", DENSE),
    *layer(r"attn_pool\.mlp\.fc2", "head.reduce", DENSE),
)
