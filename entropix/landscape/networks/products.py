r"""Products of the Hessian and of the Gauss-Newton matrix with a vector, over a data set.

Loss, parameters and data travel together as a `jax.tree_util.Partial`: a function whose bound
arrays are arguments of compiled programs, not constants in them. One program then serves all
parameters and data of the same shapes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from entropix.landscape.networks.batches import Tree, check_loss, mean_over
from entropix.landscape.networks.parameters import as_vector, at_point, movable, vector_part
from entropix.transforms import checks
from entropix.transforms.eager import as_partial

LossFn = Callable[[Tree, Tree], Any]
MatVec = Callable[[Tree], Tree]


def hvp(loss: LossFn, params: Tree, v: Tree, batches: Tree) -> Tree:
    r"""The Hessian of the mean loss times a vector.

    .. math:: H v = \frac1B \sum_b \frac{d}{d\epsilon} \nabla f_b(x + \epsilon v)\Big|_{\epsilon=0}

    Forward over reverse: two to three times the time of a gradient of the same data, and the memory
    of one batch. A program is compiled when `loss` is first seen, so hand over the same function
    every time, not a new lambda; what the function reads from outside counts as it was then, as
    under `jax.jit`. Bind what changes: `jax.tree_util.Partial(loss, decay)`.

    Args:
      loss: `loss(params, batch) -> number`, the mean over the batch's examples. Parameters reach
        this function in float32 or wider, whatever their own dtype.
      params: x, any tree of arrays and numbers. Leaves that are no floating-point numbers do not
        move.
      v: a tree like `params`.
      batches: a tree of arrays with a leading axis of batches, all of the same size (`batched`).

    Returns:
      A tree like `params`, in float32 or wider; zero for leaves that do not move.

    Raises:
      ValueError: for arguments of other forms.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda x, batch: jnp.mean((batch @ x) ** 2)
      >>> batches = jnp.asarray([[[1.0, 0.0]], [[0.0, 2.0]]])    # two batches of one example
      >>> hvp(loss, jnp.zeros(2), jnp.ones(2), batches).tolist()
      [1.0, 4.0]

    References:
      Pearlmutter, `Fast exact multiplication by the Hessian
      <https://doi.org/10.1162/neco.1994.6.1.147>`_, 1994.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    return _hessian_product(as_partial(loss), params, batches, v)


def ggn_vp(
    outputs_fn: Callable[[Tree, Tree], Tree],
    loss_fn: Callable[[Tree, Tree], Any],
    params: Tree,
    v: Tree,
    batches: Tree,
) -> Tree:
    r"""The Gauss-Newton matrix of the mean loss times a vector.

    .. math:: G v = \frac1B \sum_b J_b^\top \left(\nabla^2_z \ell_b\right) J_b\, v,\qquad
      J_b = \partial z_b / \partial x

    The Hessian without the curvature of the network itself: positive semidefinite for a loss that
    is convex in the outputs, and for a softmax with cross-entropy the Fisher information.

    Args:
      outputs_fn: `outputs_fn(params, batch) -> z`, a tree of arrays, such as logits.
      loss_fn: `loss_fn(z, batch) -> number`, the mean over the batch's examples.
      params: x, any tree of arrays and numbers.
      v: a tree like `params`.
      batches: a tree of arrays with a leading axis of batches, all of the same size.

    Returns:
      A tree like `params`, in float32 or wider; zero for leaves that do not move.

    Raises:
      ValueError: for arguments of other forms.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs = lambda x, batch: jnp.tanh(batch @ x)
      >>> square = lambda z, batch: jnp.mean(z**2) / 2
      >>> batches = jnp.asarray([[[1.0, 0.0]], [[0.0, 2.0]]])
      >>> ggn_vp(outputs, square, jnp.zeros(2), jnp.ones(2), batches).tolist()
      [0.5, 2.0]

    References:
      Schraudolph, `Fast curvature matrix-vector products
      <https://doi.org/10.1162/08997660260028683>`_, 2002; Martens, `New insights on the natural
      gradient <https://arxiv.org/abs/1412.1193>`_, 2014.
    """
    checks.check_function("outputs_fn", outputs_fn, "a function of parameters and a batch")
    checks.check_function("loss_fn", loss_fn, "a function of outputs and a batch")
    return _ggn_product(as_partial(outputs_fn), as_partial(loss_fn), params, batches, v)


def hessian(loss: LossFn, params: Tree, batches: Tree) -> MatVec:
    """The Hessian as an operator, `v -> hvp(loss, params, v, batches)`.

    Args:
      loss: as for `hvp`.
      params: as for `hvp`.
      batches: as for `hvp`.

    Returns:
      A function for `eigenvalues`, `spectrum`, `trace` and `frobenius_norm`. Parameters and data
      are arguments of their compiled programs, which serve other values too; data that a lambda
      closes over would become part of a program.

    Raises:
      ValueError: for a loss that is no function; from the operator, for arguments of other forms.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda x, batch: batch * x @ x
      >>> product = hessian(loss, jnp.ones(2), jnp.asarray([1.0, 3.0]))
      >>> product(jnp.ones(2)).tolist()
      [4.0, 4.0]
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    return Partial(_hessian_product, as_partial(loss), params, batches)


def gauss_newton(
    outputs_fn: Callable[[Tree, Tree], Tree],
    loss_fn: Callable[[Tree, Tree], Any],
    params: Tree,
    batches: Tree,
) -> MatVec:
    r"""The Gauss-Newton matrix as an operator, `v -> ggn_vp(..., v, batches)`; see `hessian`.

    .. math:: G v = \frac1B \sum_b J_b^\top \left(\nabla^2_z \ell_b\right) J_b\, v

    Args:
      outputs_fn: as for `ggn_vp`.
      loss_fn: as for `ggn_vp`.
      params: as for `ggn_vp`.
      batches: as for `ggn_vp`.

    Returns:
      A function for `eigenvalues`, `spectrum`, `trace` and `frobenius_norm`, as from `hessian`.

    Raises:
      ValueError: for an `outputs_fn` or `loss_fn` that is no function; from the operator, for
        arguments of other forms.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs = lambda x, batch: jnp.tanh(batch @ x)
      >>> square = lambda z, batch: jnp.mean(z**2) / 2
      >>> batches = jnp.asarray([[[1.0, 0.0]], [[0.0, 2.0]]])    # two batches of one example
      >>> product = gauss_newton(outputs, square, jnp.zeros(2), batches)
      >>> product(jnp.ones(2)).tolist()
      [0.5, 2.0]

    References:
      Schraudolph, `Fast curvature matrix-vector products
      <https://doi.org/10.1162/08997660260028683>`_, 2002.
    """
    checks.check_function("outputs_fn", outputs_fn, "a function of parameters and a batch")
    checks.check_function("loss_fn", loss_fn, "a function of outputs and a batch")
    return Partial(_ggn_product, as_partial(outputs_fn), as_partial(loss_fn), params, batches)


def relative(matvec: MatVec, params: Tree) -> MatVec:
    r"""The operator in units of the parameters, `v -> x * (A (x * v))`.

    .. math:: D_x A D_x,\qquad D_x = \mathrm{diag}(x)

    The Hessian of :math:`z \mapsto f(x + x\odot z)` at z = 0. Where batch normalisation, or a pair
    of layers with ReLU in between, makes f indifferent to a rescaling of a layer's weights, this
    matrix does not change under that rescaling, and the Hessian does. Half its trace times sigma^2
    is the local energy at small sigma.

    Args:
      matvec: `v -> A v`.
      params: x.

    Returns:
      An operator like `matvec`.

    Raises:
      ValueError: for a `matvec` that is no function; from the operator, for arguments of other
        forms.

    Example:
      >>> import jax.numpy as jnp
      >>> product = relative(lambda v: 2 * v, jnp.asarray([1.0, 3.0]))
      >>> product(jnp.ones(2)).tolist()
      [2.0, 18.0]
    """
    checks.check_function("matvec", matvec, "a function of a vector")
    return Partial(_relative_product, as_partial(matvec), params)


@jax.jit
def _hessian_product(loss: LossFn, params: Tree, batches: Tree, v: Tree) -> Tree:
    x, tangent = movable(params), vector_part(v, params, "v")

    def of_batch(batch: Tree) -> Tree:
        check_loss(loss, at_point(x, params), batch)
        gradient = jax.grad(lambda x: loss(at_point(x, params), batch))
        return jax.jvp(gradient, (x,), (tangent,))[1]

    return as_vector(mean_over(of_batch, batches), params)


@jax.jit
def _ggn_product(outputs_fn: Any, loss_fn: Any, params: Tree, batches: Tree, v: Tree) -> Tree:
    x, tangent = movable(params), vector_part(v, params, "v")

    def of_batch(batch: Tree) -> Tree:
        def outputs_at(x: Tree) -> Tree:
            return outputs_fn(at_point(x, params), batch)

        outputs, moved = jax.jvp(outputs_at, (x,), (tangent,))
        check_loss(loss_fn, outputs, batch, name="loss_fn")
        slope = jax.grad(lambda z: loss_fn(z, batch))
        bent = jax.jvp(slope, (outputs,), (moved,))[1]
        return jax.vjp(outputs_at, x)[1](bent)[0]

    return as_vector(mean_over(of_batch, batches), params)


@jax.jit
def _relative_product(matvec: MatVec, params: Tree, v: Tree) -> Tree:
    x, tangent = movable(params), vector_part(v, params, "v")
    scaled = as_vector(jax.tree.map(jnp.multiply, x, tangent), params)
    product = vector_part(matvec(scaled), params, "matvec's result")
    return as_vector(jax.tree.map(jnp.multiply, x, product), params)
