"""Batches from a loader on the host: the same result as from the device, also after a break."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from runs.survival import assert_identical, result
from small import arrays, line, one_run

from entropix.runs.feed import Feed
from entropix.runs.loop import Loop
from entropix.runs.preemption import Interrupted
from entropix.runs.train import train_run
from entropix.training.evaluation import evaluation_data
from entropix.training.keys import split_seed

pytestmark = pytest.mark.usefixtures("compiled_once")
BATCHES = 12  # of 8 examples


class Loader:
    """Batches in a fixed order, again and again."""

    def __init__(self, last=8):
        self.last, self.passes = last, 0

    def __iter__(self):
        self.passes += 1
        for k in range(BATCHES):
            size = self.last if k == BATCHES - 1 else 8
            yield {name: a[8 * k : 8 * k + size] for name, a in arrays(0).items()}


def without_randomness(params, model_state, batch, key):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2), model_state


def on_host(**changes):
    return line(data=Loader(**changes), loss=without_randomness)


def on_device(num_steps):
    """The loader's batches, from arrays: which one comes is told by the key of the step."""
    steps = [(outer, inner) for outer in range(8) for inner in range(num_steps)]
    key = split_seed(0).data
    folded = [jax.random.fold_in(jax.random.fold_in(key, outer), inner) for outer, inner in steps]
    known = jnp.stack([jax.random.key_data(jax.random.split(key)[0]) for key in folded])

    def sample(key, data):
        number = jnp.argmax(jnp.all(known == jax.random.key_data(key), axis=1)) % BATCHES
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, 8 * number, 8), data)

    return line(loss=without_randomness, sample=sample)


@pytest.mark.parametrize(("name", "num_steps"), [("hj", 5), ("sgd", 1)])
def test_the_same_batches_give_the_same_result(tmp_path, name, num_steps):
    budget = (8 * num_steps, 2)
    options = {"budget": budget, "seeds": 1}
    host = train_run(one_run(name, on_host(), **options), tmp_path / "host", progress=False)
    device = train_run(
        one_run(name, on_device(num_steps), **options), tmp_path / "device", progress=False
    )
    for ours, theirs in zip(host, device, strict=True):
        assert ours.minibatch_loss == pytest.approx(theirs.minibatch_loss, rel=1e-5)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours.effective_epochs is None
        assert theirs.effective_epochs == ours.gradients * 8 / 96


def test_a_run_continues_with_the_batches_that_it_has_not_seen(tmp_path, monkeypatch):
    run = one_run("hj", on_host(), budget=(60, 3), seeds=2)
    train_run(run, tmp_path / "whole", progress=False)
    go = Loop.run
    monkeypatch.setattr(Loop, "run", lambda self, _, progress: go(self, lambda: 15, progress))
    while not (tmp_path / "broken" / "complete.json").exists():
        with contextlib.suppress(Interrupted):
            train_run(run, tmp_path / "broken", progress=False)
    assert_identical(result(tmp_path / "broken"), result(tmp_path / "whole"))


def test_batches_come_in_order_and_begin_again():
    problem = on_host()
    feed = Feed(problem, 5, seen=0)
    taken = np.concatenate([feed.take()["y"] for _ in range(3)])
    expected = arrays(0)["y"].reshape(BATCHES, 8)
    np.testing.assert_array_equal(taken, expected[np.arange(15) % BATCHES])
    later = Feed(problem, 5, seen=10).take()["y"]
    np.testing.assert_array_equal(later, taken[10:])


def test_a_smaller_last_batch_is_named():
    feed = Feed(on_host(last=3), 6, seen=0)
    feed.take()
    with pytest.raises(ValueError, match=r"line's loader must have the shapes .*8, 3.*got .*3, 3"):
        feed.take()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.rint, "line's loader must have the dtypes .*float32.*; got .*int32"),
        (
            lambda a: a.astype(np.int64) + 2**40,
            "a batch of line's loader must have whole numbers in .*got 1099",
        ),
    ],
)
def test_batches_of_another_dtype_are_named(change, message):
    class Changing(Loader):
        def __iter__(self):
            for k, batch in enumerate(super().__iter__()):
                yield batch if k < 6 else batch | {"y": change(batch["y"]).astype(np.int64)}

    feed = Feed(line(data=Changing(), loss=without_randomness), 6, seen=0)
    feed.take()
    with pytest.raises(ValueError, match=message):
        feed.take()


def test_replicas_need_arrays(tmp_path):
    with pytest.raises(ValueError, match="elastic_sgd has replicas, .*loader on the host"):
        train_run(one_run("elastic_sgd", on_host()), tmp_path, progress=False)


def test_float64_batches_become_what_the_program_takes(tmp_path):
    class Double(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                yield jax.tree.map(lambda a: a.astype(np.float64), batch)

    rows = [
        train_run(one_run("hj", line(data=data, loss=without_randomness), budget=(10, 1)),
                  tmp_path / name, progress=False)
        for name, data in [("double", Double()), ("single", Loader())]
    ]  # fmt: skip
    assert [row.measures for row in rows[0]] == [row.measures for row in rows[1]]


class Endless(Loader):
    """A loader that repeats its data, as `repeat()` of grain or tf.data makes one."""

    def __iter__(self):
        while True:
            yield from super().__iter__()


class EndlessWithLength(Endless):
    """As tf.data has it."""

    def __len__(self):
        raise TypeError("The dataset is infinite.")


def test_all_examples_of_a_loader_without_a_length_are_refused():
    problem = line(data=Endless(), loss=without_randomness)
    examples = evaluation_data(problem, 20).train
    assert len(examples["x"]) == 24  # in whole batches
    for loader in (Endless(), EndlessWithLength()):
        problem = line(data=loader, loss=without_randomness)
        with pytest.raises(ValueError, match=r"eval_train_examples must be .*may repeat for ever"):
            evaluation_data(problem, 0)
