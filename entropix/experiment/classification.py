"""Classification: a problem from arrays, or a data set's name, and any model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from entropix import data as datasets
from entropix import models
from entropix.data import CATALOGUE, Dataset
from entropix.data.catalogue import DIGITS
from entropix.data.dataset import input_dtype
from entropix.data.loading import stored
from entropix.experiment.arrays import fitting, refuse_masked
from entropix.experiment.fingerprint import digest_arrays, digest_program, digest_training
from entropix.experiment.names import check_name, check_options
from entropix.experiment.networks import NetworkFunctions, network_functions
from entropix.experiment.problem import Measure, Problem
from entropix.transforms.checks import check_count, check_fraction, refusal

# The networks of `entropix.models`, with the arguments that a config may set.
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (1024, 1024), "input_dropout": 0.2, "dropout": 0.5},
    "lenet": {"dropout": 0.5},
    "all_cnn": {"input_dropout": 0.2, "dropout": 0.5},
}
MEASURES = ("loss", "error")  # of every classification


def classification(
    data: Any,
    model: Any,
    *,
    num_classes: int | None = None,
    batch_size: int = 128,
    name: str | None = None,
    data_dir: str | None = None,
    zca_regulariser: float | None = None,
) -> Problem:
    """Makes the problem of telling classes apart, by cross-entropy.

    Args:
      data: the name of a data set for `entropix.data.load`; a `Dataset`; or arrays, of NumPy or
        JAX: `(train_inputs, train_labels, test_inputs, test_labels)`, labels whole numbers from 0.
        Inputs become float32; whole numbers, such as tokens, become int32, but for uint8, which is
        taken for pictures: give tokens in bytes as int32.
      model: the name of a network of `entropix.models`, or a dictionary with its name and
        arguments; or any model that `entropix.experiment.networks` takes apart: of NNX, Linen or
        Equinox, a function that makes one, Haiku's functions, or a pair `(init, apply)`. The model
        returns logits.
      num_classes: outputs of the model; by default as many as the labels say for a network by name,
        and as many as there are for any other model.
      batch_size: examples per gradient.
      name: of the problem; by default that of the data set, or "classification".
      data_dir: folder of prepared data sets.
      zca_regulariser: of cifar10's whitening; see `entropix.data.load`.

    Returns:
      A `Problem` that measures "loss" (nats) and "error" (%).

    Raises:
      ValueError: if labels are no whole numbers, or go beyond the model's outputs, or if the model
        has not `num_classes` outputs.

    Example:
      >>> import entropix, numpy as np
      >>> x = np.random.default_rng(0).normal(size=(300, 30)).astype("float32")
      >>> y = (x[:, 0] > 0).astype(int)
      >>> problem = entropix.experiment.classification(
      ...     (x[:200], y[:200], x[200:], y[200:]), {"name": "mlp", "widths": (16,)})
      >>> problem.num_examples, sorted(problem.measures)
      (200, ['error', 'loss'])
    """
    if num_classes is not None:
        num_classes = check_count("num_classes", num_classes)
    if zca_regulariser is not None and data != "cifar10":
        raise refusal(
            "zca_regulariser", "given with cifar10 alone, which is whitened", zca_regulariser
        )
    extra = {} if zca_regulariser is None else {"zca_regulariser": zca_regulariser}
    named = isinstance(data, str)
    dataset = datasets.load(data, data_dir, **extra) if named else dataset_of(data)
    classes = _num_classes(dataset)
    network_arguments = None
    if isinstance(model, str | Mapping):
        network_arguments, model = _by_name(model, dataset, num_classes, classes)
    example = jax.ShapeDtypeStruct((2, *dataset.image_shape), dataset.train_images.dtype)
    network = network_functions(model, example)
    bytes_given = not named and np.asarray(data[0]).dtype == np.uint8
    _check_outputs(network, example, classes, num_classes, bytes_given)

    def loss(params: Any, state: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = network.apply(params, state, batch[0], True, key)
        return cross_entropy(logits, batch[1]), state

    def apply(params: Any, state: Any, inputs: Any) -> jax.Array:
        return network.apply(params, state, inputs, False, None)[0]

    estimate = network.estimate
    of_data = _digest_of_named(data, data_dir) if named else digest_arrays(dataset)
    of_model = () if network_arguments is not None else _digest_of_model(network, loss, example)
    arguments = {"data": data if named else "arrays", **extra}
    if network_arguments is not None:
        arguments["model"] = network_arguments
    return Problem(
        name=name or (data if named else "classification"),
        init=network.init,
        loss=loss,
        data=(dataset.train_images, dataset.train_labels),
        validation=(dataset.test_images, dataset.test_labels),
        batch_size=batch_size,
        measures={
            "loss": Measure(
                lambda p, s, b: cross_entropy(apply(p, s, b[0]), b[1]), "lower", "nats"
            ),
            "error": Measure(lambda p, s, b: error_rate(apply(p, s, b[0]), b[1]), "lower", "%"),
        },
        estimate=estimate and (lambda params, state, batch: estimate(params, state, batch[0])),
        apply=apply,
        arguments=arguments,
        digest="-".join(filter(None, (of_data, *of_model))) or "by name",
        eval_batch_size=2000,
    )


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy over a batch, in nats."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def error_rate(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of a batch whose largest logit is not its label's, in per cent."""
    return 100 * jnp.mean(jnp.argmax(logits, axis=-1) != labels)


def check_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the name and all arguments of a network of `entropix.models`, checked."""
    name = model.get("name")
    check_name("model", name, MODELS)
    allowed = {"name": name, "num_classes": None, **MODELS[str(name)]}
    made = {**allowed, **check_options(f"model {name}", dict(model), allowed)}
    if made["num_classes"] is not None:
        check_count("num_classes", made["num_classes"])
    for rate in {"input_dropout", "dropout"} & set(made):
        check_fraction(rate, made[rate])
    if "widths" in made:
        widths = made["widths"]
        if not isinstance(widths, list | tuple) or not widths:
            raise refusal("widths", "one or more whole numbers >= 1, such as (16,)", widths)
        for width in widths:
            check_count("widths", width)
    return made


def _by_name(
    model: str | Mapping[str, Any], dataset: Dataset, num_classes: int | None, classes: int
) -> tuple[dict[str, Any], Any]:
    """The arguments of a network by name, and the function of `rngs` that makes it."""
    arguments = check_model({"name": model} if isinstance(model, str) else model)
    options = {k: v for k, v in arguments.items() if k != "name"}
    of_model = options["num_classes"]
    if num_classes and of_model and num_classes != of_model:
        accepted = f"the model's, which has num_classes={of_model}"
        raise refusal("num_classes", accepted, num_classes, ". Give one of the two.")
    options["num_classes"] = num_classes or of_model or classes
    make = getattr(models, arguments["name"])

    def network(rngs: Any) -> Any:
        return make(input_shape=dataset.image_shape, rngs=rngs, **options)

    return {"name": arguments["name"], **options}, network


def dataset_of(data: Any) -> Dataset:
    """Arrays of any kind as a `Dataset`, checked."""
    if not isinstance(data, tuple | list) or len(data) != 4:
        accepted = (
            "the name of a data set, or (train_inputs, train_labels, test_inputs, test_labels)"
        )
        raise refusal("data", accepted, data)
    names = ("train_inputs", "train_labels", "test_inputs", "test_labels")
    arrays = [_array(name, array) for name, array in zip(names, data, strict=True)]
    for inputs, labels in (arrays[:2], arrays[2:]):
        if not len(inputs) or inputs.shape[0] != labels.shape[0] or labels.ndim != 1:
            raise ValueError(
                "data needs as many labels, in one axis, as inputs, and at least one; got inputs "
                f"of shape {inputs.shape} and labels of shape {labels.shape}."
            )
        if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
            raise ValueError(f"labels must be whole numbers from 0; got labels of {labels.dtype}.")
        if inputs.dtype.kind in "SUMmc":
            raise ValueError(f"inputs must be real numbers; got inputs of {inputs.dtype}.")
        if jnp.issubdtype(inputs.dtype, jnp.floating):  # bfloat16 too
            with np.errstate(over="ignore"):
                finite = np.isfinite(inputs.astype(np.float32, copy=False)).all()
            if not finite:
                raise ValueError(
                    "inputs must be finite in float32; got NaN, infinity or numbers beyond 3.4e38 "
                    "among them."
                )
    dtypes = [input_dtype(inputs) for inputs in arrays[::2]]
    train, test = (
        jnp.asarray(fitting("inputs", inputs, dtype), dtype)
        for inputs, dtype in zip(arrays[::2], dtypes, strict=True)
    )
    if dtypes[0] != dtypes[1]:
        given = " and ".join(str(inputs.dtype) for inputs in arrays[::2])
        raise ValueError(
            "train_inputs and test_inputs must both be floats or uint8, or both whole numbers of "
            f"another kind; got {given}. Turn both into one dtype."
        )
    train_labels, test_labels = (
        jnp.asarray(fitting("labels", a, jnp.int32), jnp.int32) for a in arrays[1::2]
    )
    return Dataset(train, train_labels, test, test_labels)


def _array(name: str, value: Any) -> np.ndarray:
    """One array of NumPy."""
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of several lengths, or what is no array at all
        array = np.asarray(None)
    if array.dtype == object or array.ndim == 0:
        way_out = ". For inputs of several arrays, write an entropix.experiment.Problem."
        raise refusal(name, "one array of numbers", value, way_out)
    return array


def _num_classes(dataset: Dataset) -> int:
    """One more than the largest label."""
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    if labels.min() < 0:
        raise ValueError(f"labels must be whole numbers from 0; got {labels.min()} among them.")
    return int(labels.max()) + 1


def _check_outputs(
    network: Any, example: Any, classes: int, num_classes: int | None, bytes_given: bool
) -> None:
    """Raises `ValueError` if labels go beyond the model's outputs: the loss would be NaN."""

    def logits(x: Any) -> Any:
        params, state = network.init(jax.random.key(0))
        return network.apply(params, state, x, False, None)[0]

    try:
        shape = jax.eval_shape(logits, example).shape
    except Exception as error:  # whatever the user's model raises
        if not bytes_given:
            raise
        why = " ".join(str(error).split())
        raise ValueError(
            "inputs of uint8 are taken for pictures and become float32, which the model does not "
            f"take ({type(error).__name__}: {why}). For tokens, give inputs.astype('int32')."
        ) from error
    outputs = f"outputs of shape {shape}" if len(shape) != 2 else f"{shape[1]} outputs"
    if len(shape) != 2 or shape[1] < classes:
        raise ValueError(
            f"labels go up to {classes - 1}, so the model must have {classes} outputs or more; it "
            f"has {outputs}. Build it with num_classes={classes}, or mend the labels."
        )
    if num_classes is not None and shape[1] != num_classes:
        raise refusal("num_classes", f"what the model has, {outputs}", num_classes)


def _digest_of_named(name: str, data_dir: str | None) -> str:
    """Of the records of a data set by name; empty where they are those of the catalogue.

    Of what is stored: whitened images differ from machine to machine in their last bits.
    """
    if name == DIGITS:
        return ""
    found = digest_arrays(stored(name, data_dir))
    return "" if found == CATALOGUE[name].digest else found


def _digest_of_model(
    network: NetworkFunctions, loss: Callable[..., Any], example: Any
) -> tuple[str, ...]:
    """Of the user's own model: how it trains, what it says in evaluation, and where it starts."""
    key = jax.random.key(0)
    params, state = jax.eval_shape(network.init, key)
    batch = example, jax.ShapeDtypeStruct(example.shape[:1], jnp.int32)
    evaluated = [lambda params, state, x: network.apply(params, state, x, False, None)[0]]
    if network.estimate is not None:
        evaluated.append(network.estimate)
    return (
        digest_training(loss, params, state, batch, key),
        *(digest_program(function, params, state, example) for function in evaluated),
        digest_arrays(network.init(key)),
    )
