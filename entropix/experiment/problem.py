"""A problem: what an experiment has to know of a model, a loss and their data."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from entropix.experiment.arrays import evenly_spread, fitting, on_device, shape_of
from entropix.experiment.fingerprint import digest_arrays, digest_program, digest_training
from entropix.experiment.forms import (
    check_state,
    described,
    form_of,
    is_number,
    returned,
    shapes_of,
    two_of,
)
from entropix.transforms.checks import check_count, check_flag, check_index, refusal, shown
from entropix.transforms.numerics import is_inexact


class Measure(NamedTuple):
    """What is measured at an evaluation.

    Attributes:
      function: `(params, model_state, batch) -> scalar`, a mean over the batch, in evaluation mode.
        A batch has examples of the data themselves, not what `sample` makes of them.
      better: "lower" or "higher".
      unit: such as "%" or "nats".
    """

    function: Callable[[Any, Any, Any], Array]
    better: str = "lower"
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model, a loss and data, ready to be trained by any algorithm.

    Attributes:
      name: what the problem is called; a part of its identity.
      init: `init(key) -> (params, model_state)`. `model_state` is what the model carries along
        without a gradient, such as batch-norm statistics; `()` for none. Of the gradients of one
        mini-batch that a step of SAM takes, the first moves it.
      loss: `loss(params, model_state, batch, key) -> (loss, model_state)`, in training mode.
      data: the training set. A pytree of arrays with a leading axis of examples; NumPy arrays are
        put on the device. Or an iterable of batches on the host (a loader of grain or torch, a
        list of tuples or dictionaries), all of `batch_size` examples, from which every gradient
        waits for a batch; that is slower.
      validation: like `data`, in arrays; None measures on the training set alone.
      batch_size: examples per gradient, >= 1.
      measures: name -> `Measure`, or a tuple of a measure's parts. "loss" is measured on the
        training and the validation set as "train_loss" and "val_loss". Without any, `loss` is
        measured, in training mode.
      sample: `sample(key, data) -> batch`, for `loss` alone, in any structure; by default
        `batch_size` examples, uniformly and with replacement. The number of examples is to be read
        from `data`: a search trains on four fifths of them.
      estimate: `estimate(params, model_state, batch) -> model_state`, whose average over the
        training set is the model state to evaluate x with; None keeps the one of training. A batch
        has examples of the data, as a measure's.
      apply: `apply(params, model_state, inputs) -> outputs` in evaluation mode, for
        `entropix.experiment.load`; optional.
      arguments: what the problem was made with, in JSON's types; a part of its identity.
      digest: of all else that decides a result; by default of the arrays and of the programs of
        all functions, that of the loss with its gradient. The values of a loader's batches are not
        in it, those of a list's are: name them in `arguments`. A digest that is given answers for
        all of that: `dataclasses.replace(problem, loss=...)` wants another one, or "" for the
        computed one.
      ordered: whether the examples of arrays stand in an order, such as that of a text or of
        classes. What is measured on a part of the training set is then spread evenly over the set;
        otherwise the part is the first examples, which are as good as any.
      eval_batch_size: examples of a batch in evaluations; 0 for `batch_size`. `estimate` sees whole
        batches; measures, which are means, see 128 examples at most.

    Raises:
      ValueError: for a part that is missing or not what it should be. What the functions return
        is found by `jax.eval_shape`; with a loader, when the first batch is read.

    Example:
      >>> import entropix, jax.numpy as jnp, numpy as np
      >>> x = np.linspace(-1, 1, 64, dtype=np.float32)
      >>> def loss(w, model_state, batch, key):
      ...   return jnp.mean((w * batch["x"] - batch["y"]) ** 2), model_state
      >>> problem = entropix.experiment.Problem(
      ...     name="line", init=lambda key: (jnp.zeros(()), ()), loss=loss,
      ...     data={"x": x, "y": 2 * x}, batch_size=8,
      ...     measures={"loss": (lambda w, s, b: loss(w, s, b, None)[0], "lower", "")})
      >>> problem.num_examples
      64
    """

    name: str
    init: Callable[[Array], tuple[Any, Any]]
    loss: Callable[[Any, Any, Any, Array], tuple[Array, Any]]
    data: Any = dataclasses.field(repr=False)  # which would fill the screen
    validation: Any = dataclasses.field(default=None, repr=False)
    batch_size: int = 128
    measures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sample: Callable[[Array, Any], Any] | None = None
    estimate: Callable[[Any, Any, Any], Any] | None = None
    apply: Callable[[Any, Any, Any], Any] | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    digest: str = ""
    eval_batch_size: int = 0
    ordered: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise refusal("name", "the problem's name", self.name)
        for part in ("init", "loss"):
            if not callable(getattr(self, part)):
                raise refusal(
                    part, "a function; see entropix.experiment.Problem", getattr(self, part)
                )
        for part in ("sample", "estimate", "apply"):
            given = getattr(self, part)
            if given is not None and not callable(given):
                raise refusal(part, "a function or None; see entropix.experiment.Problem", given)
        check_count("batch_size", self.batch_size)
        check_flag("ordered", self.ordered)
        check_index("eval_batch_size", self.eval_batch_size, "an integer >= 1, or 0 for batch_size")
        if not isinstance(self.measures, Mapping):
            raise refusal("measures", "a dictionary, name -> Measure", self.measures)
        replace = functools.partial(object.__setattr__, self)
        replace("measures", {name: _measure(name, m) for name, m in self.measures.items()})
        bound = [getattr(m.function, "__func__", None) for m in self.measures.values()]
        if bound in ([], [Problem._training_loss]):  # none given; of another loss after `replace`
            replace("measures", {"loss": Measure(self._training_loss)})
        if _is_list_of_batches(self.data):
            self._check_batches(self.data)
        if not self.on_host:
            replace("data", on_device("data", self.data))
        elif self.ordered:
            way_out = ". Of batches on the host the first ones are measured; give arrays."
            raise refusal("ordered", "False with batches on the host", True, way_out)
        if self.validation is not None:
            replace("validation", on_device("validation", self.validation))
        if not self.on_host:
            self._check_functions(self.first_batch(), self.data)

    def _training_loss(self, params: Any, model_state: Any, batch: Any) -> Array:
        """The loss in training mode, always with the same key."""
        return self.loss(params, model_state, batch, jax.random.key(0))[0]

    @functools.cached_property
    def on_host(self) -> bool:
        """Whether the batches come from an iterable on the host."""
        if _is_list_of_batches(self.data):
            return True
        leaves = jax.tree.leaves(self.data, is_leaf=lambda node: isinstance(node, Iterator))
        if leaves and all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
            return False
        once = isinstance(self.data, Iterator)
        # Of a data frame `iter` gives the names of columns.
        plain = isinstance(self.data, list | tuple | Mapping) or hasattr(self.data, "to_numpy")
        if not isinstance(self.data, Iterable) or isinstance(self.data, str) or once or plain:
            accepted = "a pytree of arrays with a leading axis of examples, or a loader of batches"
            way_out = ", which can be read once. Give what `iter` can be called on again." * once
            way_out += ". Make arrays of numbers, with np.asarray." * plain
            raise refusal("data", accepted, self.data, way_out)
        return True

    @functools.cached_property
    def num_examples(self) -> int | None:
        """Examples in the training set; None for a loader."""
        return None if self.on_host else len(jax.tree.leaves(self.data)[0])

    @functools.cached_property
    def at_state(self) -> tuple[Callable[..., Array], Callable[..., dict[str, Array]]]:
        """What instruments measure: the loss and all measures, of `(model_state, params, batch)`.

        The loss is the measure "loss" or, where there is none, `loss` in training mode. The same
        two functions are given every time: all that is compiled for them serves all runs.
        """
        known = self.measures
        of_loss = known["loss"].function if "loss" in known else self._training_loss

        def loss(model_state: Any, params: Any, batch: Any) -> Array:
            return jnp.asarray(of_loss(params, model_state, batch))

        def figures(model_state: Any, params: Any, batch: Any) -> dict[str, Array]:
            return {name: m.function(params, model_state, batch) for name, m in known.items()}

        return loss, figures

    def _check_batches(self, batches: list[Any]) -> None:
        """Raises `ValueError` unless all batches in a list have `batch_size` examples."""
        for batch in batches:
            for leaf in jax.tree.leaves(batch):
                if np.shape(fitting("data", leaf))[:1] != (self.batch_size,):
                    raise ValueError(
                        "data, a list of tuples or dictionaries, is taken for a list of batches, "
                        f"of batch_size={self.batch_size} examples each; got an array of shape "
                        f"{np.shape(leaf)} in one. Leave out a last batch that is smaller; for "
                        "arrays of all examples, write a tuple."
                    )

    def draw(self, key: Array, data: Any) -> Any:
        """A mini-batch: the problem's own `sample`, or uniform examples with replacement."""
        if self.sample is not None:
            return self.sample(key, data)
        leaves = jax.tree.leaves(data)
        index = jax.random.randint(key, (self.batch_size,), 0, len(leaves[0]))
        return jax.tree.map(lambda leaf: leaf[index], data)

    def some_of_data(self, count: int) -> Any:
        """So many examples of the training set, or all where it has fewer: see `ordered`."""
        total = self.num_examples or 0  # of arrays there are some
        some = evenly_spread(count, total) if self.ordered and count < total else slice(count)
        return jax.tree.map(lambda leaf: leaf[some], self.data)

    def first_batch(self) -> Any:
        """The shapes of one mini-batch.

        Raises:
          ValueError: if a loader has no batch, or one of another size than `batch_size`; or if
            the problem's functions do not take a loader's batch.
        """
        if not self.on_host:
            return jax.eval_shape(self.draw, jax.random.key(0), self.data)
        batch = next(iter(self.data), None)
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
            if np.ndim(leaf) == 0:
                raise ValueError(
                    "a loader's batch must have arrays with a leading axis of examples; got "
                    f"{shown(leaf)} at {jax.tree_util.keystr(path) or 'its top'}. Make an array of "
                    "each list of numbers, with np.asarray, and leave out what is no number."
                )
        leaves = [np.asarray(fitting("a loader's batch", leaf)) for leaf in jax.tree.leaves(batch)]
        if not leaves:
            raise ValueError(
                "data, a loader, must have a batch, of one array at least; got none from "
                f"iter({type(self.data).__name__})."
            )
        if any(leaf.shape[:1] != (self.batch_size,) for leaf in leaves):
            shapes = [leaf.shape for leaf in leaves]
            raise ValueError(
                f"batch_size must be that of the loader's batches, whose first one has arrays of "
                f"shapes {shapes}; got batch_size={self.batch_size}."
            )
        shapes = jax.tree.map(lambda leaf: shape_of(np.asarray(leaf)), batch)
        self._check_functions(shapes, shapes)
        return shapes

    def _check_functions(self, batch: Any, examples: Any) -> None:
        """Raises `ValueError` unless all functions return what `Problem` says.

        Args:
          batch: shapes of a mini-batch.
          examples: the training set's arrays, or their shapes.
        """
        key = jax.random.key(0)
        made = two_of("init", "(params, model_state)", returned("init", self.init, key))
        params, state = made
        if not any(map(is_inexact, jax.tree.leaves(params))):
            raise ValueError(
                "init must return parameters of which some are real numbers, which gradients can "
                f"move; got {described(params)}. Write 0.0 for 0."
            )
        given = f" on a mini-batch of data, of shapes {shapes_of(batch)}"
        result = returned("loss", self.loss, params, state, batch, key, given=given)
        loss, after = two_of("loss", "(loss, model_state)", result)
        if not is_number(loss) or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(
                "loss must return (loss, model_state), of which the first is one real number, such "
                f"as a mean over the batch; got {described(loss)}."
            )
        check_state("loss", after, state)
        some, given = self._some("data", examples)
        if self.estimate is not None:
            estimated = returned("estimate", self.estimate, params, state, some, given=given)
            check_state("estimate", estimated, state)
        sets = {"data": examples}
        if self.validation is not None:
            sets["validation"] = self.validation
            if form_of(examples) != form_of(self.validation):
                raise ValueError(
                    "validation must have the structure of data, "
                    f"{jax.tree.structure(examples)}; got {jax.tree.structure(self.validation)}. "
                    "All measures see both."
                )
        for source, tree in sets.items():
            some, given = self._some(source, tree)
            for name, measure in self.measures.items():
                function = measure.function
                value = returned(f"measures[{name!r}]", function, params, state, some, given=given)
                if not is_number(value):
                    raise ValueError(
                        f"measures[{name!r}] must return one real number, a mean over the batch; "
                        f"got {described(value)}. Write a measure for each figure."
                    )

    def _some(self, source: str, tree: Any) -> tuple[Any, str]:
        """Shapes of a batch of examples, of all where there are fewer; and the same in words."""
        count = min(self.batch_size, len(jax.tree.leaves(tree)[0]))
        some = _shapes_with(count, tree)
        return some, f" on examples of {source}, of shapes {shapes_of(some)}"

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """All that says which problem this is, in JSON's types."""
        identity = {
            "name": self.name,
            "arguments": _plain(self.arguments),
            "digest": self.digest or self._computed_digest(),
            "batch_size": self.batch_size,
            "measures": {name: [m.unit, m.better] for name, m in self.measures.items()},
        }
        return identity | ({"ordered": True} if self.ordered else {})

    def _computed_digest(self) -> str:
        batch, key = self.first_batch(), jax.random.key(0)
        examples = batch if self.on_host else _shapes_with(self.batch_size, self.data)
        params, model_state = jax.eval_shape(self.init, key)
        evaluated = [m.function for _, m in sorted(self.measures.items())]
        if self.estimate is not None:
            evaluated.append(self.estimate)
        parts = [
            f"{self.eval_batch_size}",
            digest_program(self.init, key),
            digest_training(self.loss, params, model_state, batch, key),
            *(digest_program(function, params, model_state, examples) for function in evaluated),
            digest_arrays(self.validation),
        ]
        if _is_list_of_batches(self.data):
            parts.append(digest_arrays(self.data))
        if not self.on_host:
            parts += [digest_arrays(self.data), digest_program(self.draw, key, self.data)]
        return digest_arrays([np.frombuffer(part.encode(), np.uint8) for part in parts])


def _shapes_with(count: int, tree: Any) -> Any:
    """The shapes of arrays with so many examples."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype), tree
    )


def _is_list_of_batches(data: Any) -> bool:
    """Whether the data are a list of tuples, lists or dictionaries."""
    batches = isinstance(data, list) and all(isinstance(b, list | tuple | Mapping) for b in data)
    return batches and bool(jax.tree.leaves(data))


def _measure(name: str, given: Any) -> Measure:
    parts = given if isinstance(given, tuple) else (given,)
    if not 1 <= len(parts) <= len(Measure._fields) or not callable(parts[0]):
        accepted = "(function, 'lower' or 'higher', unit) or a function"
        raise refusal(f"measures[{name!r}]", accepted, given)
    measure = Measure(*parts)
    if measure.better not in ("lower", "higher"):
        raise refusal(f"measures[{name!r}][1]", "'lower' or 'higher'", measure.better)
    return measure


def _plain(value: Any) -> Any:
    """The value in the types that JSON gives back, so that it can be compared with a saved one."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
