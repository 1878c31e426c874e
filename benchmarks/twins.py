"""Networks compared with their twins of torchvision and timm, and how much of the difference is due to camjax.

camjax has its own 1x1 and depthwise convolutions on CPUs (`camjax.models.conv`). Other convolutions are those of XLA's
and PyTorch's libraries, whose speeds differ by shape. So each network's ratio comes with that of its plain k x k
convolutions (k > 1, not depthwise) alone, with the same shapes, added up over the network. The rest of the difference
is due to camjax.
"""

import collections
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import camjax
from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, interleaved, ratio
from camjax.data.images import resize_image

# Networks that have the same name in camjax and in torchvision.
TWINS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("mobilenet_v2", "squeezenet1_1", "densenet121", "convnext_tiny", "vgg16"),
)


# Networks that have the same name in camjax and in timm.
TIMM_TWINS = ("swin_tiny_patch4_window7_224", "vit_small_patch16_224")


def twin(name: str):
    """A network of torchvision or timm in evaluation mode with random weights, and camjax's with the same."""
    torchvision = import_torchvision()
    if name in TIMM_TWINS:
        import timm

        network = timm.create_model(name).eval()
    else:
        network = getattr(torchvision.models, name)().eval()
    return network, with_weights_of(network, name)


def with_weights_of(network, name: str, dtype=jnp.float32):
    """Camjax's network of that name with the weights of PyTorch's, which compute in `dtype`."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.safetensors")
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
        return camjax.load_model(name, weights=path, dtype=dtype)


def network_times(name: str, images: np.ndarray, rounds: int) -> tuple[dict[str, np.ndarray], list[tuple]]:
    """Seconds per forward pass in interleaved rounds, and the network's convolutions.

    Args:
      name: of `TWINS` or `TIMM_TWINS`.
      images: (B, H, W, 3) uint8.
      rounds: number of rounds.

    Returns:
      {"camjax", "PyTorch"} -> (rounds,) seconds, and for each convolution the shapes that `convolution_times` takes.

    Raises:
      RuntimeError: the two do not compute the same.
    """
    import torch

    torch.set_num_threads(cpu_count())
    network, model = twin(name)
    images = resize_batch(images, model.input_size)
    mean, std = (np.array(constant, np.float32) for constant in (model.mean, model.std))
    x = torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2).contiguous()
    forward = camjax.make_cam_fn(model) if hasattr(model.head, "kernel") else _plain_forward(model)
    convolutions = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: convolutions.append(_shapes(module, args[0])))
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        expected = network(x).numpy()
    for hook in hooks:
        hook.remove()
    logits = getattr(forward(images), "logits", None)
    error = np.abs(np.asarray(forward(images) if logits is None else logits) - expected).max() / np.abs(expected).max()
    if not error < 1e-3:
        raise RuntimeError(f"{name}: the logits differ by {error:.1e} of the largest; these are not the same network.")

    def torch_forward():
        with torch.inference_mode():
            return network(x)

    return interleaved({"camjax": lambda: forward(images), "PyTorch": torch_forward}, rounds), convolutions


def convolution_ratio(convolutions: list[tuple], batch: int, rounds: int) -> float | None:
    """PyTorch's time over JAX's for the plain k x k convolutions of a network, bare; None where it has none."""
    plain = collections.Counter(c for c in convolutions if c.kernel > 1 and c.groups == 1)
    totals = collections.defaultdict(float)
    for convolution, count in plain.items():
        times = interleaved(_bare(convolution, batch), rounds)
        for name, seconds in times.items():
            totals[name] += count * float(np.median(seconds))
    return totals["PyTorch"] / totals["JAX"] if plain else None


def resize_batch(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(B, H, W, 3) uint8 images at another size."""
    return images if images.shape[1:3] == tuple(size) else np.stack([resize_image(image, size) for image in images])


Convolution = collections.namedtuple(
    "Convolution", "height width features_in features_out kernel stride padding groups"
)


def _shapes(module, x) -> Convolution:
    return Convolution(
        *x.shape[2:],
        module.in_channels,
        module.out_channels,
        max(module.kernel_size),
        module.stride[0],
        max(module.padding),
        module.groups,
    )


def _bare(c: Convolution, batch: int) -> dict:
    """The convolution in JAX (NHWC) and in PyTorch (its default layout), on random numbers."""
    import torch

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, c.height, c.width, c.features_in)).astype(np.float32)
    w = rng.normal(size=(c.kernel, c.kernel, c.features_in, c.features_out)).astype(np.float32)
    in_jax = jax.jit(
        lambda x, w: lax.conv_general_dilated(
            x, w, (c.stride,) * 2, ((c.padding,) * 2,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    jax_x, jax_w = jax.device_put((x, w))
    torch_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    torch_w = torch.from_numpy(w.transpose(3, 2, 0, 1).copy())

    def in_torch():
        with torch.inference_mode():
            return torch.nn.functional.conv2d(torch_x, torch_w, stride=c.stride, padding=c.padding)

    return {"JAX": lambda: in_jax(jax_x, jax_w), "PyTorch": in_torch}


def _plain_forward(model):
    """The bare forward pass of a network without class activation maps."""
    model.eval()
    leaves, structure = jax.tree.flatten(camjax.models.fold_batchnorm(model))
    compiled = jax.jit(lambda leaves, images: jax.tree.unflatten(structure, leaves)(images))
    return lambda images: compiled(leaves, jnp.asarray(images))


def add_twins(report, images: np.ndarray, rounds: int) -> None:
    """Adds a row for each network of `TWINS` and `TIMM_TWINS` to a report of `benchmarks.cam_throughput`."""
    timm_twins = () if missing("timm") else TIMM_TWINS
    for name in (*TWINS, *timm_twins):
        times, convolutions = network_times(name, images, rounds)
        value = ratio(times["PyTorch"], times["camjax"])
        bare = convolution_ratio(convolutions, len(images), max(3, rounds // 2))
        own = name in ("mobilenet_v2", "convnext_tiny", *TIMM_TWINS)  # products and depthwise, but for the first layers
        speed = ", ".join(f"{who} {len(images) / np.median(t):.1f} img/s" for who, t in times.items())
        beside = "no plain convolutions" if bare is None else f"its k x k convolutions alone {bare:.2f}"
        report.add(
            f"{name}, batch {len(images)}",
            f"{speed}; {beside}",
            f"{name}_vs_torch",
            value,
            (">=", 1.0) if own else None,
        )
        if bare is not None:
            report.figures[f"{name}_convolutions_vs_torch"] = round(bare, 4)
