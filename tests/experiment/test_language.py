"""The language model: what is predicted, what is held out, and that training it works."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from entropix.experiment import Budget, algorithm, language_model, train
from entropix.experiment.language import standard_library
from entropix.models import Decoder
from entropix.runs.flatness import sample as flatness_sample
from entropix.training.evaluation import evaluation_data

SMALL = {"width": 16, "layers": 1, "heads": 2, "length": 12}
TEXT = b"abcd" * 300


def test_windows_share_their_ends():
    problem = language_model(bytes(range(97, 123)) * 2, TEXT, **SMALL)
    windows = np.asarray(problem.data)
    assert windows.shape == (4, 13)
    np.testing.assert_array_equal(windows[1:, 0], windows[:-1, -1])
    assert bytes(windows[0]) == b"abcdefghijklm"


def test_a_place_does_not_see_what_comes_after():
    model = Decoder(8, 6, width=4, layers=2, heads=2, rngs=nnx.Rngs(0))
    tokens = np.asarray([[1, 2, 3, 4, 5, 6]])
    changed = tokens.copy()
    changed[0, 4:] = 7
    before, after = model(tokens), model(changed)
    np.testing.assert_allclose(before[0, :4], after[0, :4], rtol=1e-6)
    assert np.abs(np.asarray(before[0, 4:] - after[0, 4:])).max() > 1e-3


def test_bits_are_nats_over_log_two_and_fall_in_training(tmp_path):
    problem = language_model(TEXT, TEXT, batch_size=8, **SMALL)
    adamw = algorithm("adamw", learning_rate=1e-2)
    options = {"budget": Budget(60, 2), "seeds": 1, "workdir": tmp_path, "progress": False}
    rows = train(problem, adamw, **options)
    assert rows[-1]["val_bits"] == pytest.approx(rows[-1]["val_loss"] / np.log(2), rel=1e-5)
    assert rows[-1]["val_loss"] < 1.0 < np.log(256)  # four letters in one order


def test_what_is_measured_of_the_training_set_is_spread_over_the_files():
    """A text has an order: its first windows are those of its first file."""
    text = b"".join(bytes([letter]) * 60 for letter in range(97, 117))
    problem = language_model(text, TEXT, **SMALL)
    assert problem.identity["ordered"] is True
    assert problem.num_examples == 99
    rows = np.linspace(0, 98, 8).astype(int)
    expected = np.asarray(problem.data)[rows]
    np.testing.assert_array_equal(evaluation_data(problem, 8).train, expected)
    batches = flatness_sample(problem, examples=9, batch_size=4).batches
    np.testing.assert_array_equal(np.asarray(batches).reshape(8, -1), expected)
    for every in (0, 99, 1000):
        np.testing.assert_array_equal(evaluation_data(problem, every).train, problem.data)
    unordered = dataclasses.replace(problem, ordered=False)
    np.testing.assert_array_equal(evaluation_data(unordered, 8).train, problem.data[:8])
    assert "ordered" not in unordered.identity


def test_the_standard_library_is_split_by_package():
    train_text, validation = standard_library()
    assert len(train_text) > 20 * 1024
    assert 0.02 < len(validation) / len(train_text) < 1  # packages differ much in size
    problem = language_model(train_text[:5000], validation[:5000], **SMALL)
    assert problem.identity["digest"] != language_model(TEXT, TEXT, **SMALL).identity["digest"]


def test_a_short_text_is_refused():
    with pytest.raises(ValueError, match="text must be at least 13 bytes long"):
        language_model(b"short", TEXT, **SMALL)
    with pytest.raises(ValueError, match="validation must be at least 13 bytes long; got .*3 by"):
        language_model(TEXT, b"abc", **SMALL)
    with pytest.raises(ValueError, match="validation must be given with text"):
        language_model(TEXT, **SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "abcd" * 300}, r"text must be bytes; got text='abcd.*Write text.encode\(\)"),
        ({"validation": "abc" * 99}, r"validation must be bytes; .*Write validation.encode"),
        ({"text": 3}, "text must be bytes; got text=3"),
        ({"validation_windows": -1}, "validation_windows must be a static integer >= 1"),
    ],
)
def test_what_is_no_text_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        language_model(**{"text": TEXT, "validation": TEXT} | SMALL | changes)


def test_initial_parameters_are_the_seeds():
    problem = language_model(TEXT, TEXT, **SMALL)
    first, other = (problem.init(jax.random.key(seed))[0] for seed in (0, 1))
    assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(other)[0])


def test_a_decoder_takes_a_seed_and_refuses_what_is_too_long():
    model = Decoder(16, 8, width=4, layers=1, heads=2, rngs=0)
    with jax.numpy_rank_promotion("raise"):
        assert model(np.zeros((2, 5), np.int32)).shape == (2, 5, 16)
    with pytest.raises(ValueError, match=r"\(batch, n\) with n <= length=8; got shape \(1, 9\)"):
        model(np.zeros((1, 9), np.int32))


def test_where_the_text_ends_is_part_of_the_identity():
    """More windows of text and fewer of validation are another problem, of equal bytes."""
    corpus = bytes(np.random.default_rng(0).integers(32, 120, 1000).astype(np.uint8))

    def made(windows):
        text, validation = corpus[: 16 * windows + 1], corpus[16 * windows :]
        return language_model(text, validation, width=8, layers=1, heads=2, length=16)

    assert made(20).identity == made(20).identity
    assert made(20).identity != made(40).identity
