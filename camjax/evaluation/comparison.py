"""Several methods side by side: maps and boxes of the same classes of the same images."""

from collections.abc import Callable, Sequence

from flax import nnx

from camjax.evaluation.method_maps import NAMES, TRACED
from camjax.evaluation.methods import common_image_size, located, make_method, method_classes
from camjax.inference import Localization, bind, check_threshold, check_top_k, inference_view


def compare_methods(
    model: nnx.Module,
    names: Sequence[str],
    images,
    class_ids=None,
    *,
    threshold: float = 0.2,
    top_k: int = 1,
    chunk_size: int = 32,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Localization]:
    """Maps and boxes by several methods.

    All methods that do not perturb are one compiled program: the forward pass is made once, and one backward pass
    serves those that weigh gradients.

    Args:
      model: a camjax model.
      names: of methods; see `camjax.evaluation.methods.make_method`.
      images: (B, H, W, 3), RGB in 0..255; see `make_method`.
      class_ids: (B,) or (B, N) integers; None for none but the top_k.
      threshold: as in `make_method`.
      top_k: likewise.
      chunk_size: likewise.
      progress: of methods that perturb: `progress(name, done, total)` after each chunk.

    Returns:
      Name -> `Localization` of the top_k classes by falling logit and behind them class_ids, in the order of `names`.

    Raises:
      ValueError: no names, one that is unknown or given twice, methods that take images of different sizes, and what
        `make_method` raises.
    """
    if not names or len({*names}) < len(names):
        raise ValueError(f"methods {list(names)}: expected at least one, each once.")
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"methods {', '.join(unknown)}: expected some of {', '.join(NAMES)}.")
    common_image_size(model, names)
    check_threshold(threshold)
    check_top_k(top_k, min(method_classes(model, name) for name in names))
    found = {}
    # Boxes of the image gradient are drawn on the host.
    together = [name for name in names if name in TRACED and name != "backprop"]
    if together:

        def attribute(model, images, class_ids) -> dict[str, Localization]:
            view = inference_view(model)
            outs = {name: TRACED[name](view, images, class_ids, top_k) for name in together}
            return {name: located(out, images, threshold) for name, out in outs.items()}

        found = bind(model, attribute, method_classes(model, together[0]))(images, class_ids)
    for name in names:
        if name not in together:

            def of_method(done: int, total: int, name=name) -> None:
                progress(name, done, total)

            options = {"chunk_size": chunk_size, "progress": of_method if progress else None}
            found[name] = make_method(model, name, threshold=threshold, top_k=top_k, **options)(images, class_ids)
    return {name: found[name] for name in names}
