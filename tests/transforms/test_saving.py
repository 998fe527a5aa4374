"""States for savers that refuse typed keys: every saver, bit for bit."""

import functools
import io
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import drive, is_key, rosenbrock

import entropix


def msgpack(arrays, template):
    serialization = pytest.importorskip("flax.serialization")
    return serialization.from_bytes(template, serialization.to_bytes(arrays))


def equinox(arrays, template):
    eqx = pytest.importorskip("equinox")
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, arrays)
    file.seek(0)
    return eqx.tree_deserialise_leaves(file, template)


def npz(arrays, template):
    del template
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(arrays))
    return list(np.load(io.BytesIO(file.getvalue())).values())


def broadcast(arrays, template):
    del template
    multihost_utils = pytest.importorskip("jax.experimental.multihost_utils")
    return multihost_utils.broadcast_one_to_all(arrays)


def numpy_pickle(arrays, template):
    del template
    return pickle.loads(pickle.dumps(jax.tree.map(np.asarray, arrays)))


SAVERS = (msgpack, equinox, npz, broadcast, numpy_pickle)
OPTIMIZERS = {
    "entropy_sgd": lambda: entropix.entropy_sgd(0.1, 1.0),
    "entropy_sgd-stepwise": lambda: entropix.entropy_sgd(0.1, 1.0, num_steps=4, stepwise=True),
    "heat_sgd-stepwise": lambda: entropix.heat_sgd(0.1, 1e-2, num_steps=4, stepwise=True),
    "snoo": lambda: entropix.snoo(optax.adamw(1e-2), num_steps=4),
    "sam": lambda: entropix.sam(0.1, 0.05, stepwise=True),
    "chain-adam": lambda: optax.chain(
        entropix.relax(entropix.local_entropy(1.0)), optax.clip(1.0), optax.adam(1e-2)
    ),
    "injected": lambda: optax.inject_hyperparams(entropix.hj_sgd, static_args=("num_steps",))(
        0.1, 1.0, num_steps=4, stepwise=True
    ),
    "masked": lambda: optax.masked(entropix.entropy_sgd(0.1, 1.0, stepwise=True), mask),
    "rbg": lambda: entropix.entropy_sgd(0.1, 1.0, key=jax.random.key(3, impl="rbg")),
}


def mask(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 0, params)


def make_params(dtype):
    leaves = {"w": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "b": jnp.ones((), dtype)}
    return {"layer": leaves}


def bits(tree):
    """Structure, dtypes and bytes, of keys too."""
    data = lambda leaf: jax.random.key_data(leaf) if is_key(jnp.asarray(leaf)) else leaf  # noqa: E731
    leaves = [(leaf.dtype, np.asarray(data(leaf)).tobytes()) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves


@functools.cache
def trained(name, dtype):
    """(optimiser, parameters, state after three updates): of four, on the stepwise face."""
    tx, params = OPTIMIZERS[name](), make_params(dtype)

    def loss(params):
        return sum(jnp.sum((p - 1) ** 2) for p in jax.tree.leaves(params))

    def grad_fn(params, i=0):
        return jax.grad(loss)(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)
    return tx, params, state


KINDS = [(name, dtype) for name in OPTIMIZERS for dtype in ("float32", "bfloat16")]


@pytest.mark.parametrize(("name", "dtype"), [*KINDS, ("heat_sgd-stepwise", "float8_e4m3fn")])
@pytest.mark.parametrize("saver", SAVERS, ids=lambda saver: saver.__name__)
def test_every_saver_returns_the_bits(saver, name, dtype):
    tx, params, state = trained(name, dtype)
    fresh = tx.init(params)
    loaded = saver(entropix.to_arrays(state), entropix.to_arrays(fresh))
    for like in (fresh, jax.eval_shape(tx.init, params)):
        restored = entropix.from_arrays(loaded, like)
        assert bits(restored) == bits(state)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("saver", [msgpack, npz, broadcast], ids=lambda saver: saver.__name__)
def test_the_savers_do_refuse_keys(saver):
    state = {"key": jax.random.key(0)}
    with pytest.raises(Exception, match=r"key<fry>|PRNG|dtype|extended"):
        entropix.from_arrays(saver(state, state), like=entropix.to_arrays(state))


def test_a_restored_run_goes_on_as_the_other():
    target = rosenbrock()
    tx = entropix.entropy_sgd(0.1, 1.0, num_steps=4, temperature=0.1, stepwise=True)

    def step(params, state):
        updates, state = tx.update(jax.grad(target.objective)(params), state, params)
        return params + 1e-3 * updates, state

    saved = drive(step, target.start, tx.init(target.start), length=6)
    restored = entropix.from_arrays(npz(entropix.to_arrays(saved), None), like=saved)
    assert bits(drive(step, *restored, length=5)) == bits(drive(step, *saved, length=5))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_generator_and_shape(impl):
    key = jax.random.key(7, impl=impl)
    state = {"one": key, "many": jax.random.split(key, (2, 3)), "none": None}
    for like in (state, jax.eval_shape(lambda: state)):
        restored = entropix.from_arrays(entropix.to_arrays(state), like)
        assert bits(restored) == bits(state)
        assert jax.random.key_impl(restored["one"]) == impl


def test_nans_and_negative_zeros_keep_their_bits():
    words = jnp.asarray([0x7FC1, 0xFFFF, 0x8000, 0x0001], jnp.uint16)
    state = jax.lax.bitcast_convert_type(words, jnp.bfloat16)
    restored = entropix.from_arrays(npz(entropix.to_arrays(state), None), like=state)
    assert bits(restored) == bits(state)


def test_abstract_states_and_compiled_calls():
    state = entropix.entropy_sgd(0.1, 1.0).init(jnp.ones(3, jnp.bfloat16))
    arrays = entropix.to_arrays(state)
    abstract = entropix.to_arrays(jax.eval_shape(lambda: state))
    describe = lambda tree: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert describe(abstract) == describe(arrays)
    assert bits(jax.jit(entropix.to_arrays)(state)) == bits(arrays)
    assert bits(jax.jit(entropix.from_arrays)(arrays, state)) == bits(state)


def test_leaves_that_are_no_arrays_stay():
    state = {"name": jnp.tanh, "rate": 0.5, "key": jax.random.key(0)}
    restored = entropix.from_arrays(entropix.to_arrays(state), like=state)
    assert restored["name"] is jnp.tanh
    assert restored["rate"] == 0.5


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": np.ones(3, np.float32)}, "must have the structure of like"),
        ([np.ones(3, np.float32)], "or be the list of its 2 leaves"),
        ({"k": np.zeros(2, np.uint32), "w": np.ones(4, np.float32)}, r"arrays\['w'\] must have"),
        ({"k": np.zeros(2, np.uint32), "w": np.ones(3, np.int32)}, "dtype float32"),
        ({"k": np.zeros(4, np.uint32), "w": np.ones(3, np.float32)}, r"arrays\['k'\] must have"),
    ],
)
def test_arrays_of_another_state_are_refused(arrays, message):
    like = {"k": jax.random.key(0), "w": jnp.ones(3)}
    with pytest.raises(ValueError, match=message):
        entropix.from_arrays(arrays, like)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8", "float4_e2m1fn", "float8_e8m0fnu"])
def test_numbers_of_few_bits_are_saved_too(dtype):
    numbers = {"uint4": [0, 9, 15], "float4_e2m1fn": [-1.5, 0.5, 6], "float8_e8m0fnu": [0.5, 1, 8]}
    state = {"q": jnp.asarray(numbers.get(dtype, [-3, 2, 7]), dtype)}
    loaded = npz(entropix.to_arrays(state), None)
    found = entropix.from_arrays(loaded, like=state)
    assert found["q"].dtype == dtype
    np.testing.assert_array_equal(found["q"].astype(jnp.float32), state["q"].astype(jnp.float32))


def test_arrays_of_numpy_may_be_what_is_like():
    saved = np.arange(3, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (restored,) = entropix.from_arrays([saved], like=[np.zeros(3)])  # float64
    np.testing.assert_array_equal(restored, saved)


@pytest.mark.parametrize("dtype", [">i4", ">f4", "<i8"])
def test_numbers_in_another_order_of_bytes_stay_as_they_are(dtype):
    state = {"q": np.asarray([300, -70000], dtype)}
    kept = entropix.to_arrays(state)["q"]
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept, [300, -70000])
