"""Products of images and a kernel whose derivatives are written by hand, because JAX's own are slow on CPUs."""

from collections.abc import Callable

import jax


def bilinear(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    images_cotangent: Callable[[jax.Array, jax.Array], jax.Array],
    kernel_cotangent: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A product that is linear in the images and in the kernel, with its two transposes.

    Args:
      product: images, kernel -> output.
      images_cotangent: kernel, cotangent of the output -> cotangent of the images.
      kernel_cotangent: images, cotangent of the output -> cotangent of the kernel.

    Returns:
      `product` for `jax.grad` and `jax.vjp`, under `vmap` too; without a derivative in forward mode.
    """
    function = jax.custom_vjp(product)
    function.defvjp(
        lambda images, kernel: (product(images, kernel), (images, kernel)),
        lambda saved, cotangent: (images_cotangent(saved[1], cotangent), kernel_cotangent(saved[0], cotangent)),
    )
    return function
