"""Bad input: every message names the argument, its value, what is accepted, the way out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix

NAN, INF = float("nan"), float("inf")
X = {"a": jnp.ones(2), "b": jnp.ones((2, 3))}

POSITIVE = "a number > 0, or an Optax schedule"
NON_NEGATIVE = "a number >= 0, or an Optax schedule"
FRACTION = r"a number in \[0, 1\)"
RATE = r"a number in \(0, 1\]"
COUNT = "a static integer >= 1"

# maker, positional arguments
ENTROPY = (entropix.local_entropy, 1.0), (entropix.entropy_sgd, 0.1, 1.0)
HJ = (entropix.hamilton_jacobi, 1.0), (entropix.hj_sgd, 0.1, 1.0)
HEAT = (entropix.heat, 1.0), (entropix.heat_sgd, 0.1, 1.0)
PARLE, DILOCO = (entropix.parle, 0.1, 1.0, 1.0, "r"), (entropix.diloco, 0.7, "r")
AVERAGING = (entropix.elastic_averaging, 0.9, "r"), (entropix.easgd, 0.1, "r")
COUPLING = (
    (entropix.elastic_coupling, 1.0, "r"), (entropix.elastic_sgd, 0.1, 1.0, "r"), PARLE, *AVERAGING,
)  # fmt: skip
OPTIMIZERS = (
    (entropix.sgd, 0.1), (entropix.entropy_sgd, 0.1, 1.0), (entropix.hj_sgd, 0.1, 1.0),
    (entropix.heat_sgd, 0.1, 1.0), (entropix.elastic_sgd, 0.1, 1.0, "r"),
    PARLE, DILOCO, (entropix.easgd, 0.1, "r"),
)  # fmt: skip

CASES = [
    # makers, argument, bad values, what is accepted
    ((PARLE, DILOCO), "num_steps", [0, None], COUNT),
    ((PARLE, DILOCO), "step_size", [0, NAN], POSITIVE),
    ((PARLE,), "averaging", [1.0], FRACTION),
    ((PARLE,), "temperature", [-1], NON_NEGATIVE),
    ((PARLE,), "output", ["x"], "'gradient' or 'displacement'"),
    (((entropix.easgd, 0.1, "r"),), "moving_rate", [0, -0.1, 1.1, NAN, "x", None], RATE),
    (ENTROPY + HJ, "num_steps", [0, -3, 2.5, 2.0, "3", None], COUNT),
    (HEAT, "num_steps", [0, 2.5, None], COUNT),
    (ENTROPY + HJ, "step_size", [0, -0.1, NAN, INF, "0.1", None], POSITIVE),
    (ENTROPY, "averaging", [-0.1, 1, 1.0, 2, NAN, "x", None], FRACTION),
    (ENTROPY + HEAT, "temperature", [-1e-9, NAN, INF, "1", None], NON_NEGATIVE),
    (ENTROPY + HJ, "output", ["gradients", "Gradient", None, 1], "'gradient' or 'displacement'"),
    (HJ, "form", ["prox", None, 1], "'proximal' or 'gradient'"),
    (ENTROPY + HEAT, "noise", ["gauss", None, 1], "'normal'"),
    (COUPLING, "period", [0, -1, 1.5, None], COUNT),
    (OPTIMIZERS, "momentum", [-0.1, 1.0, 1, NAN, "0.9"], FRACTION),
]

# Arguments that are numbers, with or without schedules.
SCHEDULED = [
    (functools.partial(entropix.sgd), "learning_rate"),
    (functools.partial(entropix.local_entropy), "gamma"),
    (functools.partial(entropix.local_entropy, 1.0), "step_size"),
    (functools.partial(entropix.local_entropy, 1.0), "temperature"),
    (functools.partial(entropix.hamilton_jacobi, form="gradient"), "gamma"),
    (functools.partial(entropix.hamilton_jacobi, 1.0, form="gradient"), "step_size"),
    (functools.partial(entropix.heat), "gamma"),
    (functools.partial(entropix.heat, 1.0), "temperature"),
    (functools.partial(entropix.sharpness), "rho"),
    (functools.partial(entropix.elastic_coupling, axis_name="r"), "gamma"),
    (functools.partial(entropix.outer, optax.sgd(0.1), step_size=0.1), "gamma"),
    (functools.partial(entropix.outer, optax.sgd(0.1), gamma=1.0), "step_size"),
    (functools.partial(entropix.outer, optax.sgd(0.1), step_size=0.1), "temperature"),
    (functools.partial(entropix.lookahead, optax.sgd(0.1)), "slow_step_size"),
]
FIXED_NUMBERS = [
    (functools.partial(entropix.sgd, 0.1), "momentum"),
    (functools.partial(entropix.local_entropy, 1.0), "averaging"),
    (functools.partial(entropix.elastic_averaging, axis_name="r"), "moving_rate"),
    (functools.partial(entropix.scoping), "init_value"),
    (functools.partial(entropix.scoping, 1.0), "rate"),
    (functools.partial(entropix.scoping, 1.0), "end_value"),
    (functools.partial(entropix.hj_prox, jnp.sum, jnp.ones(2), temperature=1.0), "t"),
    (functools.partial(entropix.hj_prox, jnp.sum, jnp.ones(2), 1.0), "temperature"),
]
NUMBERS = SCHEDULED + FIXED_NUMBERS
NO_NUMBERS = [
    (0.5 + 1j, r"got \w+=\(0.5\+1j\)"),
    (np.complex64(0.5), r"got \w+=np.complex64"),
    ("0.5", r"got \w+='0.5'"),
    (True, r"got \w+=True"),
    (NAN, r"got \w+=nan"),
    (np.asarray([]), "For several values at once, jax.vmap"),
    (np.asarray([0.5]), "For several values at once, jax.vmap"),
    (jnp.ones((2, 2)), "For several values at once, jax.vmap"),
    ([0.5], r"got \w+=\[0.5\]. For several values at once"),
    (np.asarray(0.5, object), r"got \w+=array\(0.5, dtype=object\)"),
    (float, "got .*a class. Write a number"),
    (1e-50, "which is 0 in float32"),
]
NUMBER_KINDS = [
    float, np.float64, np.float32, np.float16, jnp.float32, jnp.bfloat16, np.asarray, jnp.asarray
]  # fmt: skip


def assert_moved_by(updates, factor):
    for update, leaf in zip(jax.tree.leaves(updates), jax.tree.leaves(X), strict=True):
        np.testing.assert_allclose(np.asarray(update), factor * np.asarray(leaf), rtol=1e-4)


def flat(cases):
    for makers, argument, values, accepted in cases:
        for maker, *positional in makers:
            for value in values:
                name = f"{maker.__name__}-{argument}-{value!r}"
                yield pytest.param(maker, positional, argument, value, accepted, id=name)


class TestArguments:
    @pytest.mark.parametrize(
        ("maker", "positional", "argument", "value", "accepted"), list(flat(CASES))
    )
    def test_message(self, maker, positional, argument, value, accepted):
        with pytest.raises(ValueError, match=accepted) as error:
            maker(*positional, **{argument: value})
        assert str(error.value).startswith(f"{argument} must be ")
        assert f"{argument}={value!r}" in str(error.value)

    @pytest.mark.parametrize("value", [0, -1.0, NAN, -INF, "1", None])
    @pytest.mark.parametrize("maker", ["local_entropy", "hamilton_jacobi", "gradient", "heat",
                                       "elastic_coupling"])  # fmt: skip
    def test_gamma(self, maker, value):
        make = {
            "local_entropy": entropix.local_entropy,
            "hamilton_jacobi": entropix.hamilton_jacobi,
            "gradient": lambda gamma: entropix.hamilton_jacobi(gamma, form="gradient"),
            "heat": entropix.heat,
            "elastic_coupling": lambda gamma: entropix.elastic_coupling(gamma, "r"),
        }[maker]
        with pytest.raises(ValueError, match=f"gamma must be {POSITIVE}") as error:
            make(value)
        assert f"gamma={value!r}" in str(error.value)

    @pytest.mark.parametrize(("value", "why"), NO_NUMBERS)
    @pytest.mark.parametrize(("maker", "argument"), NUMBERS)
    def test_no_number(self, maker, argument, value, why):
        with pytest.raises(ValueError, match=f"^{argument} must be a number.*{why}") as error:
            maker(**{argument: value})
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("trace", [lambda v: v[None], lambda v: v + 0j, lambda v: v > 0])
    @pytest.mark.parametrize(("maker", "argument"), NUMBERS)
    def test_traced_arrays_are_no_numbers(self, maker, argument, trace):
        with pytest.raises(ValueError, match=f"^{argument} must be a number.*got {argument}="):
            jax.jit(lambda v: maker(**{argument: trace(v)}) and None)(0.5)

    @pytest.mark.parametrize("kind", NUMBER_KINDS)
    @pytest.mark.parametrize(("maker", "argument"), NUMBERS)
    def test_every_kind_of_number(self, maker, argument, kind):
        maker(**{argument: kind(0.5)})
        jax.jit(lambda v: maker(**{argument: v}) and None)(kind(0.5))

    @pytest.mark.parametrize(("maker", "argument"), FIXED_NUMBERS)
    def test_fixed_numbers_take_no_schedule(self, maker, argument):
        message = f"^{argument} must be a number.*a function. Schedules are not taken here"
        with pytest.raises(ValueError, match=message):
            maker(**{argument: lambda count: 0.5})

    @pytest.mark.parametrize("value", [2**31, 10**30, np.int64(2**40), np.uint64(2**63)])
    def test_large_integers(self, value):
        tx = entropix.outer(
            optax.sgd(0.1), num_steps=2, gamma=value, step_size=1.0, temperature=1e-30
        )
        updates, _ = tx.update(X, tx.init(X), X)
        assert_moved_by(updates, -0.1)
        tx = entropix.hj_sgd(value, value, num_steps=1, momentum=None)
        updates, _ = tx.update(X, tx.init(X), X, grad_fn=lambda p, i: p)
        assert_moved_by(updates, -0.1)
        scope = entropix.scoping(value, rate=0.5)
        np.testing.assert_allclose(float(scope(1)), float(value) / 2, rtol=1e-6)

    def test_numbers_that_round_to_a_forbidden_one(self):
        with pytest.raises(ValueError, match="averaging=0.999999999, which is 1 in float32"):
            entropix.local_entropy(1.0, averaging=0.999999999)
        with pytest.raises(ValueError, match="temperature=1e-50, which is 0 in float32"):
            entropix.heat(1.0, temperature=1e-50)
        with pytest.raises(ValueError, match="gamma=1e\\+50, which is inf in float32"):
            entropix.heat(1e50)

    def test_numbers_of_double_precision(self):
        with jax.enable_x64(True):
            entropix.local_entropy(1.0, averaging=0.999999999, temperature=1e-50)
            entropix.heat(1e50)

    def test_infinite_gamma(self):
        message = "gamma must be finite with output='{}'.*use output='{}'"
        forward = message.format("gradient", "displacement")
        with pytest.raises(ValueError, match=forward):
            entropix.local_entropy(INF)
        with pytest.raises(ValueError, match=forward):
            entropix.hj_sgd(0.1, INF)
        with pytest.raises(ValueError, match=message.format("displacement", "gradient")):
            entropix.hamilton_jacobi(INF, form="gradient", output="displacement")
        with pytest.raises(ValueError, match="gamma must be a number > 0"):
            entropix.heat(INF)

    @pytest.mark.parametrize("infinity", [np.inf, np.float32(np.inf), jnp.asarray(jnp.inf)])
    def test_infinite_gamma_of_any_type(self, infinity):
        with pytest.raises(ValueError, match="gamma must be finite"):
            entropix.local_entropy(infinity)

    @pytest.mark.parametrize("make", [entropix.local_entropy, entropix.hamilton_jacobi,
                                      entropix.heat])  # fmt: skip
    def test_traced_length(self, make):
        with pytest.raises(ValueError, match=r"num_steps must be a static integer >= 1.*traced"
                           r".*static_args=\('num_steps',\)"):  # fmt: skip
            jax.jit(lambda L: make(1.0, num_steps=L).init(X))(3)

    def test_traced_period(self):
        with pytest.raises(ValueError, match=r"static_args=\('period',\)"):
            jax.jit(lambda n: entropix.elastic_coupling(1.0, "r", period=n).init(X))(3)

    @pytest.mark.parametrize("axis_name", [(), 0, None, ("r", 1), ["r"], ("r", "r")])
    def test_axis_name(self, axis_name):
        with pytest.raises(ValueError, match="axis_name must be the name") as error:
            entropix.elastic_coupling(1.0, axis_name)
        assert repr(axis_name) in str(error.value)
        relaxation = entropix.local_entropy(1.0)
        for make in (
            lambda: entropix.average_updates(axis_name),
            lambda: entropix.elastic_averaging(0.9, axis_name),
            lambda: entropix.parle(0.1, 1.0, 1.0, axis_name),
            # Of one replica alone, None is the default.
            lambda: entropix.diloco(0.7, axis_name or (), stepwise=True),
            lambda: entropix.stepwise(relaxation, optax.sgd(0.1), axis_name=axis_name or ()),
        ):
            with pytest.raises(ValueError, match="axis_name must be the name"):
                make()

    @pytest.mark.parametrize(
        "key",
        [
            1.5, "0", True, None, [1, 2], np.zeros(2), np.asarray(0.5), 2**70,
            np.zeros(3, np.uint32), np.random.default_rng(0),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("make", [entropix.local_entropy, entropix.heat])
    def test_key(self, make, key):
        with pytest.raises(ValueError, match="key must be an integer seed.*got key="):
            make(1.0, key=key)

    @pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
    def test_array_of_keys(self, make):
        keys = jax.random.split(make(0), 3)
        with pytest.raises(ValueError, match="key must be one key.*entropix.reseed takes the arr"):
            entropix.local_entropy(1.0, key=keys)
        state = jax.vmap(entropix.local_entropy(1.0).init)(jnp.zeros((3, 2)))
        data = jax.random.key_data(entropix.reseed(state, keys).key)
        np.testing.assert_array_equal(data, np.asarray(jax.random.key_data(keys)))

    @pytest.mark.parametrize("key", [2**63 - 1, -(2**63), np.uint64(2**64 - 1), np.uint32(7)])
    def test_large_seeds(self, key):
        entropix.local_entropy(1.0, key=key).init(X)

    def test_reseed(self):
        state = jax.vmap(entropix.entropy_sgd(0.1, 1.0).init)(jnp.zeros((3, 2)))
        with pytest.raises(ValueError, match=r"shape \(3,\).*got shape \(2,\)"):
            entropix.reseed(state, jax.random.split(jax.random.key(0), 2))
        with pytest.raises(ValueError, match=r"key must be an integer seed.*key=1\.5"):
            entropix.reseed(state, 1.5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"init_value": 0.0}, "init_value must be a number > 0.*init_value=0.0"),
            ({"init_value": INF}, "init_value must be a number > 0.*init_value=inf"),
            ({"init_value": 1.0, "rate": 1.0}, r"rate must be a number in \[0, 1\).*rate=1.0"),
            ({"init_value": 1.0, "rate": -0.1}, r"rate must be a number in \[0, 1\).*rate=-0.1"),
            ({"init_value": 1.0, "end_value": -1}, "end_value must be a number >= 0"),
        ],
    )
    def test_scoping(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            entropix.scoping(**arguments)

    def test_good_edges_are_accepted(self):
        tiny = np.finfo(np.float32).tiny  # below it compiled programs flush to 0
        entropix.local_entropy(tiny, num_steps=np.int64(1), step_size=1e-30, averaging=0)
        entropix.local_entropy(INF, output="displacement", averaging=0.999, temperature=0.0)
        entropix.hamilton_jacobi(INF, form="gradient", num_steps=jnp.asarray(3))
        entropix.elastic_coupling(INF, ("a", "b"), period=np.int32(2))
        for make, *positional in OPTIMIZERS:
            make(*positional, momentum=None)
            make(*positional, momentum=0)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda v: entropix.relax(v), "relaxation must be a Relaxation, such as"),
            (lambda v: entropix.stepwise(v, optax.sgd(0.1)), "relaxation must be a Relaxation"),
            (lambda v: entropix.stepwise(entropix.heat(1.0), v), "optimizer must be an Optax tr"),
            (lambda v: entropix.outer(v), "optimizer must be an Optax transformation"),
            (lambda v: entropix.outer(optax.sgd(0.1), v or ()), "outer_optimizer must be an Opt"),
            (lambda v: entropix.entropy_sgd(0.1, 1.0, inner=v or ()), "inner must be an Optax tr"),
            (lambda v: entropix.relaxed_grad(v, jnp.cos), "relaxation must be a Relaxation"),
            (lambda v: entropix.relaxed_grad(entropix.heat(1.0), v or ()), "grad_fn must be a fun"),
            (lambda v: entropix.per_outer_step(v, 3), "schedule must be an Optax schedule"),
        ],
    )
    @pytest.mark.parametrize("value", [5, "sgd", None, optax.GradientTransformation])
    def test_parts(self, make, message, value):
        with pytest.raises(ValueError, match=message):
            make(value)

    def test_factories_that_were_not_called(self):
        with pytest.raises(ValueError, match=r"inner must be .*scale_by_adam\(\).*Call the func"):
            entropix.local_entropy(1.0, inner=optax.scale_by_adam)

    def test_a_complete_optimiser_that_asks_for_the_loss(self):
        for complete in (optax.polyak_sgd(1.0), optax.contrib.momo(0.1)):
            with pytest.raises(ValueError, match="inner must come without learning rate and minus"):
                entropix.local_entropy(1.0, inner=complete)
        entropix.snoo(optax.polyak_sgd(1.0))

    @pytest.mark.parametrize(
        ("make", "argument"),
        [
            (entropix.sharpness, "adaptive"),
            (entropix.local_entropy, "reset_inner"),
            (functools.partial(entropix.sam, 0.1), "stepwise"),
        ],
    )
    def test_flags(self, make, argument):
        with pytest.raises(ValueError, match=f"{argument} must be True or False; got {argument}=1"):
            make(1.0, **{argument: 1})


LINKS = {
    "relax": entropix.relax(entropix.local_entropy(1.0, num_steps=3, temperature=0)),
    "relax_heat": entropix.relax(entropix.heat(1.0, num_steps=3)),
    "stepwise": entropix.stepwise(entropix.local_entropy(1.0), optax.sgd(0.1)),
    "elastic": entropix.elastic_coupling(1.0, "r"),
    "averaging": entropix.elastic_averaging(0.9, "r"),
}


class TestUpdate:
    @pytest.mark.parametrize("name", LINKS)
    def test_without_params_shows_the_call(self, name):
        tx = LINKS[name]
        line = r"Write: updates, state = tx.update\(grads, state, params"
        with pytest.raises(ValueError, match=f"needs the current parameters.*{line}"):
            tx.update(X, tx.init(X))

    @pytest.mark.parametrize("name", ["relax", "relax_heat"])
    def test_without_grad_fn_shows_the_call(self, name):
        tx = LINKS[name]
        with pytest.raises(ValueError, match=r"grad_fn=lambda params, i: .*entropix\.stepwise"):
            tx.update(X, tx.init(X), X)

    @pytest.mark.parametrize("name", ["relax", "relax_heat"])
    @pytest.mark.parametrize(
        ("grad_fn", "message"),
        [
            (lambda p, i: (0.0, p), r"\(value, grads\) pair: use jax.grad"),
            (lambda p, i: p["a"], "must have the structure of the parameters"),
            (lambda p, i: {**p, "a": jnp.ones(3)}, r"at \['a'\], expected \(2,\), got \(3,\)"),
            (lambda p, i: {**p, "b": jnp.sum(p["b"])}, r"at \['b'\], expected \(2, 3\), got \(\)"),
            (lambda p, i: None, "must have the structure of the parameters"),
        ],
    )
    def test_grad_fn_that_returns_something_else(self, name, grad_fn, message):
        tx = LINKS[name]
        with pytest.raises(ValueError, match=message) as error:
            jax.jit(lambda: tx.update(X, tx.init(X), X, grad_fn=grad_fn))()
        assert "The gradients returned by grad_fn must have" in str(error.value)

    @pytest.mark.parametrize("name", ["relax", "stepwise"])
    @pytest.mark.parametrize(
        ("grads", "message"),
        [
            ((jnp.asarray(1.0), X), r"\(value, grads\) pair"),
            ({"a": X["a"]}, "must have the structure of the parameters"),
            ({**X, "a": jnp.ones((2, 1))}, r"at \['a'\], expected \(2,\), got \(2, 1\)"),
        ],
    )
    def test_gradients_of_another_shape(self, name, grads, message):
        tx = LINKS[name]
        with pytest.raises(ValueError, match=message) as error:
            tx.update(grads, tx.init(X), X, grad_fn=lambda p, i: p)
        assert "The gradients passed to update must have" in str(error.value)

    def test_array_as_the_whole_tree(self):
        tx, x = LINKS["stepwise"], jnp.ones(3)
        with pytest.raises(ValueError, match=r"the only leaf, expected \(3,\), got \(\)"):
            tx.update(jnp.asarray(1.0), tx.init(x), x)

    def test_pure_function_checks_too(self):
        relaxation = entropix.hamilton_jacobi(1.0)
        fn = entropix.relaxed_grad(relaxation, lambda p, i, c: ((c, p), c), has_carry=True)
        with pytest.raises(ValueError, match=r"\(value, grads\) pair"):
            fn(X, relaxation.init(X), 0.0)

    @pytest.mark.parametrize("period", [1, 3])
    def test_elastic_outside_its_axis(self, period):
        self.assert_needs_its_axis(entropix.elastic_coupling(1.0, "replica", period=period))

    @pytest.mark.parametrize("period", [1, 3])
    def test_averaging_outside_its_axis(self, period):
        self.assert_needs_its_axis(entropix.elastic_averaging(0.9, "replica", period=period))
        self.assert_needs_its_axis(entropix.average_updates("replica"))
        relaxation = entropix.hamilton_jacobi(1.0)
        self.assert_needs_its_axis(
            entropix.stepwise(relaxation, optax.sgd(0.1), axis_name="replica")
        )

    def assert_needs_its_axis(self, tx):
        with pytest.raises(
            ValueError, match=r"axis_name='replica' names no mapped axis.*jax\.vmap"
        ):
            tx.update(X, tx.init(X), X)
        pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), X)
        with pytest.raises(
            ValueError, match=r"axis_name='replica' names no mapped axis.*jax\.vmap"
        ):
            jax.vmap(tx.update, axis_name="r")(pair, jax.vmap(tx.init)(pair), pair)

    @pytest.mark.parametrize("make", [entropix.local_entropy, entropix.heat])
    def test_noise_outside_its_axis(self, make):
        relaxation = make(1.0, axis_name="replica")
        fn = entropix.relaxed_grad(relaxation, lambda p, i: p)
        with pytest.raises(ValueError, match=r"axis_name='replica' names no mapped axis"):
            fn(X, relaxation.init(X))

    @pytest.mark.parametrize("axis_name", [(), 0, ("r", 1), ["r"]])
    @pytest.mark.parametrize("make", [entropix.local_entropy, entropix.heat])
    def test_axis_name_of_noise(self, make, axis_name):
        with pytest.raises(ValueError, match="axis_name must be the name"):
            make(1.0, axis_name=axis_name)

    def test_eval_params_without_our_state(self):
        tx = optax.adam(0.1)
        with pytest.raises(ValueError, match="found no state of entropix.*Pass the optimiser's"):
            entropix.eval_params(tx.init(X), X)


def test_an_infinite_number_is_told_to_be_finite():
    with pytest.raises(ValueError, match=r"t must be a number > 0; got t=inf, which is not finite"):
        entropix.hj_prox(jnp.sum, jnp.ones(2), math.inf, temperature=1.0)
    with pytest.raises(ValueError, match=r"gamma must be a number > 0.*got gamma=-inf\.$"):
        entropix.outer(optax.sgd(0.1), gamma=-math.inf)


def test_of_large_trees_the_first_difference_is_named():
    w = {f"layer_{n}": {"kernel": jnp.ones(2), "bias": jnp.ones(2)} for n in range(40)}
    grads = {name: leaves for name, leaves in w.items() if name != "layer_7"}
    tx = entropix.hj_sgd(0.1, 1.0, stepwise=True)
    with pytest.raises(
        ValueError, match=r"have \['layer_7'\]\['bias'\] \(80 leaves; got 78\)"
    ) as said:
        tx.update(grads, tx.init(w), w)
    assert len(str(said.value)) < 300
