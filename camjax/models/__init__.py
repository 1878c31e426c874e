"""Networks with class activation maps: the registry, and what a network is made of."""

from camjax.models.base import CamModel
from camjax.models.head import PooledHead
from camjax.models.inference_mode import inference_view
from camjax.models.layers import ConvBN, fold_batchnorm
from camjax.models.registry import create_model, list_models, model_spec, register_model
from camjax.models.spec import ModelSpec, WeightsSource
from camjax.models.surgery import with_new_head
from camjax.models.text_classes import with_text_classes
from camjax.models.wsol.table import with_wsol

__all__ = [
    "CamModel",
    "ConvBN",
    "ModelSpec",
    "PooledHead",
    "WeightsSource",
    "create_model",
    "fold_batchnorm",
    "inference_view",
    "list_models",
    "model_spec",
    "register_model",
    "with_new_head",
    "with_text_classes",
    "with_wsol",
]
