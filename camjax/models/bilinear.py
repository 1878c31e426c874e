"""Products of images and a kernel whose derivatives are written by hand, because JAX's own are slow on CPUs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from camjax.sharding import varying_alike

Product = Callable[[jax.Array, jax.Array], jax.Array]


def bilinear(product: Product, images_cotangent: Product, kernel_cotangent: Product) -> Product:
    """A product that is linear in the images and in the kernel, with its two transposes.

    Args:
      product: images, kernel -> output. None of the three has traced arrays in its closure.
      images_cotangent: kernel, cotangent of the output -> cotangent of the images.
      kernel_cotangent: images, cotangent of the output -> cotangent of the kernel.

    Returns:
      `product`, for derivatives in forward and reverse mode, of any order, and for `vmap`.
    """

    def function(images, kernel):
        images, kernel = varying_alike(images, kernel)
        return _bilinear.bind(
            images,
            kernel,
            program=jax.make_jaxpr(product)(images, kernel),
            transposes=(images_cotangent, kernel_cotangent),
        )

    return function


# A primitive as dot_general is one, for which JAX's rules of differentiation hold: `jax.custom_vjp` would forbid
# derivatives in forward mode, and JAX's `linear_call` those of second order, which a loss of gradients' maps takes.
_bilinear = Primitive("bilinear")


@_bilinear.def_impl
def _run(images, kernel, *, program, transposes):
    del transposes
    return jaxpr_as_fun(program)(images, kernel)[0]


@_bilinear.def_abstract_eval
def _output(images, kernel, *, program, transposes):
    del images, kernel, transposes
    return program.out_avals[0]


def _batched(arguments, axes, *, program, transposes):
    """`vmap` of the product and of its transposes; arrays that all share have the sum of all cotangents."""

    def transpose(cotangent_of, other_axis, own_axis):
        def of_all(other, cotangent):
            found = jax.vmap(cotangent_of, (other_axis, 0))(other, cotangent)
            return found.sum(0) if own_axis is None else jnp.moveaxis(found, 0, own_axis)

        return of_all

    images_axis, kernel_axis = axes
    product = bilinear(
        jax.vmap(lambda images, kernel: jaxpr_as_fun(program)(images, kernel)[0], axes),
        transpose(transposes[0], kernel_axis, images_axis),
        transpose(transposes[1], images_axis, kernel_axis),
    )
    return product(*arguments), 0


batching.primitive_batchers[_bilinear] = _batched
mlir.register_lowering(_bilinear, mlir.lower_fun(_run, multiple_results=False))
ad.defbilinear(
    _bilinear,
    lambda cotangent, images, kernel, *, program, transposes: transposes[0](kernel, cotangent),
    lambda cotangent, images, kernel, *, program, transposes: transposes[1](images, cotangent),
)
