"""XLA options that make convolutions faster on CPU, where this version of XLA has them."""

import functools

import jax

# XLA's CPU backend sends dots and convolutions to YNNPACK. Its dots are fast, its convolutions
# about half as fast as the ones they replaced: this option keeps the former only.
_KEEP_DOTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns `compiler_options` for `jax.jit` that make convolutions faster, if there are any.

    The option is experimental and belongs to some versions of XLA, so it is tried on a trivial
    program first. Nothing depends on it but speed.

    Returns:
      A dictionary for `jax.jit(f, compiler_options=...)`: empty on accelerators, and wherever XLA
      does not know the option.

    Example:
      >>> import jax.numpy as jnp
      >>> step = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> float(step(jnp.ones(())))
      2.0
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0.0, compiler_options=_KEEP_DOTS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_KEEP_DOTS)
