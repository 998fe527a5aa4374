"""Bad input: every message names the argument, its value, what is accepted, the way out."""

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

    @pytest.mark.parametrize("axis_name", [(), 0, None, ("r", 1), ["r"]])
    def test_axis_name(self, axis_name):
        with pytest.raises(ValueError, match="axis_name must be the name") as error:
            entropix.elastic_coupling(1.0, axis_name)
        assert repr(axis_name) in str(error.value)
        relaxation = entropix.local_entropy(1.0)
        for make in (
            lambda: entropix.average_updates(axis_name),
            lambda: entropix.elastic_averaging(0.9, axis_name),
            lambda: entropix.parle(0.1, 1.0, 1.0, axis_name),
            lambda: entropix.diloco(0.7, axis_name, stepwise=True),
            # Of one replica alone, None is the default.
            lambda: entropix.stepwise(relaxation, optax.sgd(0.1), axis_name=axis_name or ()),
        ):
            with pytest.raises(ValueError, match="axis_name must be the name"):
                make()

    @pytest.mark.parametrize("key", [1.5, "0", True, None, [1, 2], np.zeros(2), np.asarray(0.5)])
    @pytest.mark.parametrize("make", [entropix.local_entropy, entropix.heat])
    def test_key(self, make, key):
        with pytest.raises(ValueError, match="key must be an integer seed.*got key="):
            make(1.0, key=key).init(X)

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
        tiny = np.nextafter(0, 1)
        entropix.local_entropy(tiny, num_steps=np.int64(1), step_size=1e-30, averaging=0)
        entropix.local_entropy(INF, output="displacement", averaging=0.999, temperature=0.0)
        entropix.hamilton_jacobi(INF, form="gradient", num_steps=jnp.asarray(3))
        entropix.elastic_coupling(INF, ("a", "b"), period=np.int32(2))
        for make, *positional in OPTIMIZERS:
            make(*positional, momentum=None)
            make(*positional, momentum=0)


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
