"""A language model on text that every machine has: the source of Python's standard library."""

import hashlib
import math
import pathlib
import platform
import sysconfig
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from entropix.experiment.arrays import evenly_spread
from entropix.experiment.networks import network_functions
from entropix.experiment.problem import Measure, Problem
from entropix.models.decoder import Decoder
from entropix.transforms.checks import check_count, refusal

_VOCABULARY = 256  # bytes
_HELD_OUT = 10  # one package in so many is for validation
_NO_TEXT = ("site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__")


def language_model(
    text: bytes | None = None,
    validation: bytes | None = None,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    length: int = 96,
    batch_size: int = 16,
    validation_windows: int = 2000,
) -> Problem:
    """Makes the problem of predicting the next byte of a text, with a small decoder.

    Args:
      text: to train on; by default nine packages in ten of Python's standard library.
      validation: text to validate on; by default the other packages. Given with `text`.
      width: features of the decoder; the defaults have 0.47 million parameters.
      layers: blocks of the decoder.
      heads: of its attention, a divisor of `width`.
      length: bytes in a window that are predicted.
      batch_size: windows per gradient.
      validation_windows: how many are measured, evenly spread; >= 1.

    Returns:
      A `Problem` that measures "loss" (nats a byte) and "bits" (a byte). Its identity has the
      version of Python, whose library differs, and a digest of the text.

    Raises:
      ValueError: for a text that is no bytes, or too short for a window.

    Example:
      >>> problem = language_model(b"to be or not to be. " * 40, b"to be. " * 40, width=8,
      ...                          layers=1, heads=2, length=16)
      >>> problem.num_examples, sorted(problem.measures)
      (49, ['bits', 'loss'])
    """
    given = text is not None
    if given != (validation is not None):
        raise refusal("validation", "given with text, and only then", validation)
    for name, part in (("text", text), ("validation", validation)):
        if part is not None and not isinstance(part, bytes | bytearray):
            way_out = f". Write {name}.encode()." * isinstance(part, str)
            raise refusal(name, "bytes", part, way_out)
    check_count("validation_windows", validation_windows)
    train_text, other = (text, validation) if given else standard_library()
    check_count("length", length)
    train = _windows("text", train_text or b"", length)
    held_out = _windows("validation", other or b"", length)
    measured_windows = min(validation_windows, len(held_out))
    held_out = held_out[evenly_spread(measured_windows, len(held_out))]

    def model(rngs: nnx.Rngs) -> Decoder:
        return Decoder(_VOCABULARY, length, width, layers, heads, rngs=rngs)

    network = network_functions(model, jax.ShapeDtypeStruct((1, length), jnp.int32))

    def nats(params: Any, state: Any, batch: jax.Array, train: bool, key: Any) -> jax.Array:
        tokens = batch.astype(jnp.int32)
        logits, _ = network.apply(params, state, tokens[:, :-1], train, key)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    def measured(params: Any, state: Any, batch: jax.Array) -> jax.Array:
        return nats(params, state, batch, False, None)

    # The number of windows says where, in what is digested, the text ends and validation begins.
    library = f"standard library of Python {platform.python_version()}"
    source = f"given, {len(train)} windows" if given else library
    digest = hashlib.blake2b(train.tobytes() + held_out.tobytes(), digest_size=8).hexdigest()
    return Problem(
        name="language",
        init=network.init,
        loss=lambda p, s, batch, key: (nats(p, s, batch, True, key), s),
        data=train,
        validation=held_out,
        batch_size=batch_size,
        measures={
            "loss": Measure(measured, "lower", "nats"),
            "bits": Measure(lambda p, s, b: measured(p, s, b) / math.log(2), "lower", "bits"),
        },
        apply=lambda params, state, tokens: network.apply(params, state, tokens, False, None)[0],
        arguments={
            "text": source, "width": width, "layers": layers, "heads": heads, "length": length,
        },
        digest=digest,
        ordered=True,  # files follow each other by name
        eval_batch_size=20,  # activations of 100 leave the cache: half as fast
    )  # fmt: skip


def standard_library() -> tuple[bytes, bytes]:
    """The source of Python's standard library without its tests, for training and validation.

    Packages, not files, are held out: one in ten, chosen by a digest of its name, so that the same
    ones are chosen everywhere.
    """
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    texts: tuple[list[bytes], list[bytes]] = ([], [])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not any(part in _NO_TEXT for part in parts):
            package = parts[0].removesuffix(".py")
            place = int(hashlib.sha256(package.encode()).hexdigest(), 16) % _HELD_OUT
            texts[place == 0].append(path.read_bytes())
    return b"\n".join(texts[0]), b"\n".join(texts[1])


def _windows(name: str, text: bytes, length: int) -> np.ndarray:
    """Windows of `length` + 1 bytes, which share their ends."""
    count = (len(text) - 1) // length
    if count < 1:
        raise refusal(name, f"at least {length + 1} bytes long", f"{len(text)} bytes")
    tokens = np.frombuffer(text, np.uint8)
    return np.stack([tokens[k * length : (k + 1) * length + 1] for k in range(count)])
