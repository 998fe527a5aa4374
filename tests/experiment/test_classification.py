"""Classification: arrays of any kind, models of four libraries, labels that fit."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from small import one_run

from entropix.data import Dataset
from entropix.experiment import classification
from entropix.experiment.classification import MEASURES
from entropix.experiment.networks import network_functions
from entropix.experiment.settings import Settings
from entropix.training.evaluation import evaluation_data, make_estimate
from entropix.training.programs import make_programs
from entropix.training.state import Point

FEATURES, CLASSES = 6, 3


def data(seed=0, train=60, test=30, classes=CLASSES):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(train + test, FEATURES)).astype(np.float32)
    y = np.argmax(x[:, :classes], axis=1)
    return x[:train], y[:train], x[train:], y[train:]


class NnxNet(nnx.Module):
    def __init__(self, width=8, *, rngs):
        self.first = nnx.Linear(FEATURES, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Dense(8)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        return linen.Dense(CLASSES)(linen.Dropout(0.3, deterministic=not train)(x))


class LinenFlagNet(linen.Module):
    @linen.compact
    def __call__(self, x, is_training=False, scaled=None):
        x = linen.relu(linen.Dense(8)(x))
        return linen.Dense(CLASSES)(linen.Dropout(0.3, deterministic=not is_training)(x))


class LinenFieldNet(linen.Module):
    deterministic: bool = True

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Dense(8)(x))
        return linen.Dense(CLASSES)(linen.Dropout(0.3, deterministic=self.deterministic)(x))


class NnxFlagNet(NnxNet):
    def __call__(self, x, deterministic=True):
        x = nnx.relu(self.first(x))
        return self.last(self.drop(x, deterministic=deterministic))


class SowingNet(NnxNet):
    def __call__(self, x):
        self.sow(nnx.Intermediate, "inputs", x)
        return super().__call__(x)


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(FEATURES, 8, key=keys[0])
        self.drop = eqx.nn.Dropout(0.3)
        self.last = eqx.nn.Linear(8, CLASSES, key=keys[1])

    def __call__(self, x, *, key=None):
        return self.last(self.drop(jax.nn.relu(self.first(x)), key=key))


class EquinoxFlagNet(EquinoxNet):
    def __call__(self, x, inference=True, *, key=None):
        return self.last(self.drop(self.first(x), inference=inference, key=key))


class EquinoxKeyNet(EquinoxNet):
    def __call__(self, x, key):
        return super().__call__(x, key=key)


class EquinoxOrderedNet(EquinoxNet):
    order: jax.Array
    kept: jax.Array

    def __init__(self, key):
        super().__init__(key)
        self.order = jax.random.permutation(key, 8)
        self.kept = jax.random.bernoulli(key, 0.9, (8,))

    def __call__(self, x, *, key=None):
        return self.last(self.kept * self.drop(self.first(x), key=key)[self.order])


def haiku_net(x, is_training=False):
    x = jax.nn.relu(hk.Linear(8)(x))
    x = hk.dropout(hk.next_rng_key(), 0.3, x) if is_training else x
    return hk.Linear(CLASSES)(x)


def haiku_state_net(x, is_training):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training)
    return hk.Linear(CLASSES)(jax.nn.relu(x))


def haiku_plain_net(x):
    return hk.Linear(CLASSES)(x)


class Named(NamedTuple):
    init: Any
    apply: Any


def used(model):
    """The model after one call, which leaves what the model sows in the model."""
    model(jnp.zeros((1, FEATURES)))
    return model


def init(key):
    return {"w": 0.1 * jax.random.normal(key, (FEATURES, CLASSES)), "b": jnp.zeros(CLASSES)}


def apply(params, x):
    return x @ params["w"] + params["b"]


def one_keyed(key):
    return eqx.nn.MLP(FEATURES, CLASSES, 8, 1, key=key)


MODELS = {
    "nnx": lambda: NnxNet(rngs=nnx.Rngs(0)),
    "nnx, a function of rngs": lambda: lambda rngs: NnxNet(rngs=rngs),
    "nnx, the class": lambda: NnxNet,
    "nnx, the class with an argument": lambda: functools.partial(NnxNet, width=5),
    "linen": lambda: LinenNet(),
    "equinox": lambda: EquinoxNet(jax.random.key(0)),
    "equinox, a function of key": lambda: one_keyed,
    "equinox, the class": lambda: EquinoxNet,
    "equinox, key needed": lambda: EquinoxKeyNet,
    "equinox, inference": lambda: EquinoxFlagNet,
    "equinox, whole numbers": lambda: EquinoxOrderedNet,
    "linen, is_training": lambda: LinenFlagNet(),
    "linen, a field": lambda: LinenFieldNet(),
    "nnx, deterministic": lambda: NnxFlagNet,
    "nnx that sows": lambda: SowingNet,
    "nnx that has sown": lambda: used(SowingNet(rngs=nnx.Rngs(0))),
    "haiku": lambda: hk.transform(haiku_net),
    "haiku with a state": lambda: hk.transform_with_state(haiku_state_net),
    "haiku without keys": lambda: hk.without_apply_rng(hk.transform(haiku_plain_net)),
    "haiku with a state, without keys": lambda: hk.without_apply_rng(
        hk.transform_with_state(haiku_state_net)
    ),
    "a named pair": lambda: Named(init, apply),
    "a pair": lambda: (init, apply),
}
RANDOM = {
    "haiku",
    "equinox, whole numbers",
    "equinox, inference",
    "linen, a field",
    "nnx, deterministic",
    "equinox, key needed",
    "linen, is_training",
    "nnx that sows",
    "nnx that has sown",
    "nnx",
    "nnx, a function of rngs",
    "nnx, the class",
    "nnx, the class with an argument",
    "linen",
    "equinox",
    "equinox, the class",
}
ONE_START = {"nnx", "equinox", "nnx that has sown"}
SOWS = pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")


@SOWS
@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_library_train_and_are_measured(name):
    problem = classification(data(), MODELS[name](), batch_size=16)
    assert tuple(problem.measures) == MEASURES
    run = one_run(optax.adam(0.03), problem, budget=(60, 1))
    programs = make_programs(run)
    now = programs.starter.place(programs.starter.init())
    before = {n: np.array(v) for n, v in programs.evaluate(now.state).items()}
    starts = jax.tree.leaves(now.state.params)
    same = all(bool(jnp.all(leaf[0] == leaf[1])) for leaf in starts)
    assert same == (name in ONE_START)  # or every seed has parameters of its own
    after = programs.advance(now, (jnp.asarray(60, jnp.int32), programs.data))
    measured = programs.evaluate(after.state)
    assert set(measured) == {"train_loss", "train_error", "val_loss", "val_error"}
    assert np.all(measured["train_loss"] < 0.8 * before["train_loss"])


@SOWS
@pytest.mark.parametrize("name", MODELS)
def test_keys_matter_in_training_and_not_in_evaluation(name):
    example = jax.ShapeDtypeStruct((5, FEATURES), jnp.float32)
    network = network_functions(MODELS[name](), example)
    params, state = network.init(jax.random.key(1))
    x = jnp.asarray(data()[0][:5])
    outputs = [network.apply(params, state, x, True, jax.random.key(k))[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2]) == (name not in RANDOM)
    evaluated, unchanged = network.apply(params, state, x, False, None)
    assert evaluated.shape == (5, CLASSES)
    jax.tree.map(np.testing.assert_array_equal, unchanged, state)


def test_every_seed_has_the_whole_numbers_of_its_key():
    example = jax.ShapeDtypeStruct((5, FEATURES), jnp.float32)
    network = network_functions(EquinoxOrderedNet, example)
    x = jnp.asarray(data()[0][:5])
    for seed in (0, 1, 2):
        params, state = network.init(jax.random.key(seed))
        expected = jax.vmap(eqx.nn.inference_mode(EquinoxOrderedNet(jax.random.key(seed))))(x)
        np.testing.assert_allclose(network.apply(params, state, x, False, None)[0], expected)


def test_statistics_of_x_are_estimated_for_nnx():
    """With one batch: mean and variance of the hidden layer over the whole training set."""
    problem = classification(data(), lambda rngs: NnxNet(rngs=rngs), batch_size=16)
    params, state = problem.init(jax.random.key(0))
    examples = evaluation_data(problem, 0)
    found = make_estimate(problem)(Point(params, state), examples)
    hidden = data()[0] @ np.asarray(params["first"]["kernel"]) + np.asarray(params["first"]["bias"])
    statistics = found.model_state["norm"]
    np.testing.assert_allclose(statistics["mean"], hidden.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], hidden.var(axis=0), rtol=1e-4, atol=1e-5)
    assert found.params is params


def test_the_package_networks_by_name_get_their_outputs_from_the_labels():
    for classes in (2, 3):
        problem = classification(data(classes=classes), {"name": "mlp", "widths": (4,)})
        params, state = jax.eval_shape(problem.init, jax.random.key(0))
        logits = jax.eval_shape(problem.apply, params, state, problem.data[0][:2])
        assert logits.shape == (2, classes)
    wider = classification(data(), {"name": "mlp", "widths": (4,)}, num_classes=7)
    assert wider.arguments["model"]["num_classes"] == 7


x_train, y_train, x_test, y_test = data()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((x_train, y_train + 1, x_test, y_test), "labels go up to 3, so the model must have 4"),
        ((x_train, y_train - 1, x_test, y_test), "labels must be whole numbers from 0; got -1"),
        ((x_train, y_train + 0.5, x_test, y_test), "whole numbers from 0; got labels of float64"),
        ((x_train, y_train[:-1], x_test, y_test), r"as many labels.*\(60, 6\).*\(59,\)"),
        ((x_train, y_train[:, None], x_test, y_test), "as many labels, in one axis"),
        ((x_train.astype(int), y_train, x_test, y_test), "must both be .*; got int64 and float"),
        (
            (np.ma.masked_greater(x_train, 2), y_train, x_test, y_test),
            "train_inputs must have no masked values",
        ),
        ((x_train, y_train, x_test[:0], y_test[:0]), "at least one; got inputs of shape"),
        ((np.where(x_train > 2, np.nan, x_train), y_train, x_test, y_test), "inputs must be fin"),
        (
            (np.where(x_train > 2, np.nan, x_train).astype(jnp.bfloat16), y_train, x_test, y_test),
            "inputs must be finite",
        ),
        ((x_train.astype(int) + 2**40, y_train, x_test, y_test), r"inputs .*2147483647\], .*10995"),
        ((x_train, y_train + 2**40, x_test, y_test), "labels must have whole numbers in .*; got 1"),
        ((1e39 * x_train.astype(float), y_train, x_test, y_test), "inputs must be finite in float"),
        ((x_train + 1j, y_train, x_test, y_test), "inputs must be real numbers; got .* complex64"),
        ((x_train.astype(str), y_train, x_test, y_test), "inputs must be real numbers; got .*<U"),
        (
            ({"x": x_train}, y_train, x_test, y_test),
            "train_inputs must be one array.*write",
        ),
        (([[1], [2, 3]], [0, 1], x_test, y_test), "train_inputs must be one array of numbers"),
        ((x_train, y_train), "data must be the name of a data set, or"),
        (3, "data must be the name of a data set, or"),
    ],
)
def test_data_that_do_not_fit_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        classification(arrays, (init, apply))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "model must be an NNX, Linen or Equinox model"),
        (lambda x: x, "model must be an NNX, Linen"),
        ("mpl", "unknown model 'mpl'.*Did you mean 'mlp'"),
        ({"name": "mlp", "width": 3}, "'width'.*Did you mean 'widths'"),
        ((init, lambda params, x: apply(params, x)[:, 0]), r"outputs of shape \(2,\)"),
        ((init, lambda params, x: apply(params, x)[:, :2]), "go up to 2, .*it has 2 outputs"),
        (lambda key: eqx.nn.BatchNorm(FEATURES, "batch", mode="ema"), "with a state"),
    ],
)
def test_models_that_do_not_fit_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        classification(data(), model)


def test_whitening_is_of_cifar10_alone():
    for given in ("digits", data()):
        with pytest.raises(ValueError, match=r"zca_regulariser must be given with cifar10 alone"):
            classification(given, "mlp", zca_regulariser=3.0)


@pytest.mark.parametrize(
    ("model", "num_classes", "message"),
    [
        ("mlp", 0, "num_classes must be a static integer >= 1"),
        ({"name": "mlp", "num_classes": 3}, 7, "must be the model's, which has num_classes=3; got"),
        ((init, apply), 7, "num_classes must be what the model has, 3 outputs; got num_classes=7"),
    ],
)
def test_numbers_of_classes_that_do_not_fit_are_refused(model, num_classes, message):
    with pytest.raises(ValueError, match=message):
        classification(data(), model, num_classes=num_classes)


class TokenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(CLASSES)(linen.Embed(256, 4)(x).mean(axis=1))


def test_bytes_are_pictures_and_whole_numbers_are_tokens():
    tokens = np.random.default_rng(0).integers(0, 256, (60, 5))
    arrays = (tokens, y_train, tokens[:30], y_test)
    assert classification(arrays, TokenNet()).data[0].dtype == jnp.int32
    small = (tokens.astype(np.uint8), y_train, tokens[:30].astype(np.uint8), y_test)
    with pytest.raises(ValueError, match=r"uint8 are taken for pictures.*give inputs.astype\('int"):
        classification(small, TokenNet())
    pair = (lambda key: jnp.zeros((5, CLASSES)), lambda w, x: x @ w)
    assert classification(small, pair).data[0].dtype == jnp.float32


class LinenNeeds(linen.Module):
    def __call__(self, x, mode):
        return x


class LinenOffers(linen.Module):
    @linen.compact
    def __call__(self, x, learning=False):
        return linen.Dense(CLASSES)(x)


class NnxNeeds(NnxNet):
    def __call__(self, x, mode):
        return x


class NnxOffers(NnxNet):
    def __call__(self, x, learning=False):
        return super().__call__(x)


class EquinoxOffers(EquinoxNet):
    def __call__(self, x, learning=False, *, key=None):
        return super().__call__(x, key=key)


def test_flags_that_are_not_known_are_named():
    """A model whose flag has another name would train in evaluation mode, in silence."""
    for needs in (LinenNeeds(), NnxNeeds):
        with pytest.raises(ValueError, match=r"Needs.__call__ .*got mode without.*is_training"):
            classification(data(), needs)
    for offers in (LinenOffers(), NnxOffers, EquinoxOffers):
        with pytest.warns(UserWarning, match=r"Offers.__call__: learning stays False"):
            classification(data(), offers)
    with pytest.raises(ValueError, match="model must be a model with a method __call__"):
        classification(data(), nnx.Module())


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", ["key", "rng"])
def test_a_pair_is_told_whether_it_trains(name, jitted):
    def apply_key(params, x, train=False, key=None):
        kept = jax.random.bernoulli(key, 0.5, x.shape) if train else 1.0
        return apply(params, x * kept)

    def apply_rng(params, x, *, deterministic, rng):
        return apply_key(params, x, not deterministic, rng)

    dropping = apply_key if name == "key" else apply_rng
    if jitted:
        flag = "train" if name == "key" else "deterministic"
        dropping = jax.jit(dropping, static_argnames=flag)
    network = network_functions((init, dropping), jax.ShapeDtypeStruct((5, FEATURES), jnp.float32))
    params, state = network.init(jax.random.key(0))
    x, key = jnp.asarray(data()[0][:5]), jax.random.key(1)
    kept = jax.random.bernoulli(key, 0.5, x.shape)
    trained, evaluated = (
        network.apply(params, state, x, t, k)[0] for t, k in ((True, key), (False, None))
    )
    np.testing.assert_allclose(trained, apply(params, x * kept), rtol=1e-6)
    np.testing.assert_allclose(evaluated, apply(params, x), rtol=1e-6)


def test_a_pair_keeps_the_default_key_of_its_apply_in_evaluation():
    usual = jax.random.key(7)

    def noisy(params, x, key=usual):
        return apply(params, x + jax.random.normal(key, x.shape))

    network = network_functions((init, noisy), jax.ShapeDtypeStruct((5, FEATURES), jnp.float32))
    params, state = network.init(jax.random.key(0))
    x = jnp.asarray(data()[0][:5])
    found = network.apply(params, state, x, False, None)[0]
    np.testing.assert_allclose(found, noisy(params, x), rtol=1e-6)


def test_the_apply_of_a_linen_module_makes_a_pair_without_warnings(recwarn):
    module = linen.Dense(CLASSES)
    start = lambda key: module.init(key, jnp.zeros((1, FEATURES)))  # noqa: E731
    assert classification(data(), (start, module.apply)).num_examples > 0
    assert [str(w.message) for w in recwarn if "stays False" in str(w.message)] == []


def test_flags_of_a_pair_that_are_not_known_are_named():
    with pytest.warns(UserWarning, match=r"^apply: learning stays False"):
        classification(data(), (init, lambda p, x, learning=False: apply(p, x)))
    with pytest.raises(ValueError, match=r"apply is called with .*got mode without a default"):
        classification(data(), (init, lambda p, x, mode: apply(p, x)))


def test_own_data_and_models_have_identities():
    pair = (init, apply)
    base = classification(data(), pair)
    assert classification(data(), pair).identity == base.identity
    as_dataset = Dataset(*map(jnp.asarray, data()))
    assert classification(as_dataset, pair).identity == base.identity
    others = {
        "data": classification(data(1), pair),
        "labels": classification((*data()[:3], 0 * data()[3]), pair),
        "model": classification(data(), (init, lambda p, x: apply(p, 2 * x))),
        "gradient": classification(data(), (init, lambda p, x: apply(jax.lax.stop_gradient(p), x))),
        "start": classification(
            data(), (lambda key: jax.tree.map(jnp.ones_like, init(key)), apply)
        ),
        "name": classification(data(), pair, name="mine"),
    }
    identities = [problem.identity for problem in others.values()]
    assert base.identity not in identities
    assert len({repr(identity) for identity in identities}) == len(others)


def test_evaluation_alone_is_in_the_identity_of_a_model():
    def scaled(factor):
        def applied(params, x, train=False):
            return apply(params, x) * (1.0 if train else factor)

        return classification(data(), (init, applied)).identity

    assert scaled(1.0) == scaled(1.0) != scaled(5.0)


def test_named_data_and_models_are_identified_by_name():
    problem = classification("digits", {"name": "mlp", "widths": (4,)})
    assert problem.identity["digest"] == "by name"
    arguments = problem.identity["arguments"]
    assert arguments["data"] == "digits"
    assert arguments["model"]["widths"] == [4]
    assert arguments["model"]["num_classes"] == 10


def test_measures_are_means_over_all_examples():
    """Also where batches of an evaluation do not divide the set."""
    problem = classification(data(), (init, apply))
    assert problem.eval_batch_size == 2000
    run = one_run(optax.sgd(0.1), problem, seeds=1, settings=Settings(eval_train_examples=0))
    programs = make_programs(run)
    state = programs.starter.place(programs.starter.init()).state
    found = programs.evaluate(state)
    params, _ = problem.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    logits = apply(params, data()[2])
    wrong = 100 * np.mean(np.argmax(logits, axis=1) != data()[3])
    np.testing.assert_allclose(found["val_error"][0], wrong, rtol=1e-5)
    probabilities = jax.nn.log_softmax(logits)[np.arange(30), data()[3]]
    np.testing.assert_allclose(found["val_loss"][0], -probabilities.mean(), rtol=1e-5)
