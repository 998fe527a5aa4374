"""The three networks of Deep Relaxation, section 8, to the exact number of parameters."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import jax
from flax import nnx

from entropix.models.convolution import conv_general_dilated
from entropix.models.dropout import Dropout
from entropix.models.network import Network
from entropix.models.pooling import max_pool
from entropix.models.streams import streams
from entropix.transforms.checks import check_count, check_fraction, refusal

Layer = Callable[[jax.Array], jax.Array]

# Torch's default, with which the paper's experiments ran; Flax's own is 0.99, too slow for the
# few hundred steps between two looks at the validation set.
_STATISTICS_MOMENTUM = 0.9


def mlp(
    input_shape: Sequence[int] = (28, 28, 1),
    widths: Sequence[int] = (1024, 1024),
    num_classes: int = 10,
    input_dropout: float = 0.2,
    dropout: float = 0.5,
    *,
    rngs: nnx.Rngs | jax.Array | int,
) -> Network:
    """The paper's `mnistfc`: dropout, hidden layers with batch normalisation, a linear output.

    Every hidden layer is linear, ReLU, batch normalisation, dropout, as in the paper and its
    authors' code. The defaults have 1,863,690 weights and biases, and 1,867,786 parameters with the
    scales and offsets of the normalisation.

    Args:
      input_shape: shape of one input, channels last or flat.
      widths: units of the hidden layers.
      num_classes: number of logits.
      input_dropout: rate of the dropout on the inputs, in [0, 1).
      dropout: rate of the dropout after every hidden layer, in [0, 1).
      rngs: `nnx.Rngs`, a key or a seed.

    Returns:
      A network from `(batch, *input_shape)` to `(batch, num_classes)` logits.

    Raises:
      ValueError: for sizes that are no integers >= 1, or rates outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> model = mlp(input_shape=(8, 8, 1), widths=(32,), rngs=0)
      >>> model.eval()
      >>> model(jnp.zeros((5, 8, 8, 1))).shape
      (5, 10)
    """
    shape = _sizes("input_shape", input_shape)
    rngs = streams(rngs)
    layers: list[Layer] = [_dropout("input_dropout", input_dropout), _flatten]
    features = functools.reduce(int.__mul__, shape)
    for width in _sizes("widths", widths):
        layers += [
            nnx.Linear(features, width, rngs=rngs),
            nnx.relu,
            _normalise(width, rngs),
            _dropout("dropout", dropout),
        ]
        features = width
    layers.append(nnx.Linear(features, check_count("num_classes", num_classes), rngs=rngs))
    return Network(layers, input_shape=shape, rngs=rngs)


def lenet(
    input_shape: Sequence[int] = (28, 28, 1),
    channels: Sequence[int] = (20, 50),
    width: int = 500,
    num_classes: int = 10,
    dropout: float = 0.5,
    *,
    rngs: nnx.Rngs | jax.Array | int,
) -> Network:
    """The paper's `LeNet`: two convolutions, one hidden layer, a linear output.

    Blocks: 5x5 convolution without padding, ReLU, max pooling (3, then 2), batch normalisation,
    dropout. Then a hidden layer with ReLU and dropout. The defaults have 131,220 parameters.

    Args:
      input_shape: `(height, width, channels)`, at least 22 pixels high and wide.
      channels: output channels of the two convolutions.
      width: units of the hidden layer.
      num_classes: number of logits.
      dropout: rate of every dropout, in [0, 1).
      rngs: `nnx.Rngs`, a key or a seed.

    Returns:
      A network from `(batch, *input_shape)` to `(batch, num_classes)` logits.

    Raises:
      ValueError: for sizes that are no integers >= 1, images too small, or rates outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> model = lenet(rngs=0)
      >>> model(jnp.zeros((5, 28, 28, 1)), rngs=jax.random.key(1)).shape
      (5, 10)
    """
    shape = _image_shape(input_shape)
    first, second = _sizes("channels", channels, count=2)
    if min(shape[:2]) < 22:
        raise ValueError(
            "input_shape must be at least (22, 22, channels), so that two 5x5 convolutions with "
            f"pooling by 3 and 2 leave a pixel; got input_shape={shape}. Enlarge the images, or "
            "use entropix.models.mlp or all_cnn."
        )
    rngs = streams(rngs)
    layers: list[Layer] = []
    height, breadth, features = shape
    for outputs, window in ((first, 3), (second, 2)):
        layers += [
            _convolution(features, outputs, 5, rngs, padding=0),
            functools.partial(max_pool, window_shape=(window,) * 2, strides=(window,) * 2),
            nnx.relu,  # after pooling: the same function with fewer operations
            _normalise(outputs, rngs),
            _dropout("dropout", dropout),
        ]
        height, breadth, features = (height - 4) // window, (breadth - 4) // window, outputs
    width = check_count("width", width)
    layers += [
        _flatten,
        nnx.Linear(height * breadth * features, width, rngs=rngs),
        nnx.relu,
        _dropout("dropout", dropout),
        nnx.Linear(width, check_count("num_classes", num_classes), rngs=rngs),
    ]
    return Network(layers, input_shape=shape, rngs=rngs)


def all_cnn(
    input_shape: Sequence[int] = (32, 32, 3),
    channels: Sequence[int] = (96, 192),
    num_classes: int = 10,
    input_dropout: float = 0.2,
    dropout: float = 0.5,
    *,
    rngs: nnx.Rngs | jax.Array | int,
) -> Network:
    """The paper's `All-CNN` (All-CNN-C with batch normalisation): convolutions and a mean.

    Two blocks of three 3x3 convolutions, the last of stride 2 and followed by dropout; two more
    3x3 convolutions and one 1x1, whose mean over the image is the output. Batch normalisation and
    ReLU follow all nine. The defaults have 1,667,166 parameters.

    Args:
      input_shape: `(height, width, channels)`.
      channels: channels of the two blocks; those after it have as many as the second.
      num_classes: number of logits.
      input_dropout: rate of the dropout on the inputs, in [0, 1).
      dropout: rate of the dropout after either block, in [0, 1).
      rngs: `nnx.Rngs`, a key or a seed.

    Returns:
      A network from `(batch, *input_shape)` to `(batch, num_classes)` logits, which are >= 0.

    Raises:
      ValueError: for sizes that are no integers >= 1, or rates outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> model = all_cnn(input_shape=(8, 8, 1), channels=(4, 8), rngs=0)
      >>> model(jnp.zeros((5, 8, 8, 1)), rngs=jax.random.key(1)).shape
      (5, 10)

    References:
      Springenberg et al, `Striving for simplicity: the all convolutional net
      <https://arxiv.org/abs/1412.6806>`_, 2015.
    """
    shape = _image_shape(input_shape)
    first, second = _sizes("channels", channels, count=2)
    rngs = streams(rngs)
    features = shape[2]
    layers: list[Layer] = [_dropout("input_dropout", input_dropout)]

    def convolve(outputs: int, window: int = 3, stride: int = 1) -> None:
        nonlocal features
        # An explicit pixel of padding, as in the authors' framework; "SAME" would shift stride 2.
        padding = window // 2
        layers.extend(
            [
                _convolution(features, outputs, window, rngs, padding=padding, stride=stride),
                _normalise(outputs, rngs),
                nnx.relu,
            ]
        )
        features = outputs

    for outputs in (first, second):
        convolve(outputs)
        convolve(outputs)
        convolve(outputs, stride=2)
        layers.append(_dropout("dropout", dropout))
    convolve(second)
    convolve(second)
    convolve(check_count("num_classes", num_classes), window=1)
    return Network([*layers, _mean_pool], input_shape=shape, rngs=rngs)


def _convolution(
    inputs: int, outputs: int, window: int, rngs: nnx.Rngs, *, padding: int, stride: int = 1
) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (window, window),
        stride,
        padding=padding,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


def _normalise(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, momentum=_STATISTICS_MOMENTUM, rngs=rngs)


def _dropout(name: str, rate: float) -> Dropout:
    return Dropout(check_fraction(name, rate))


def _flatten(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))  # -1 is unknown of an empty batch


def _mean_pool(x: jax.Array) -> jax.Array:
    return x.mean(axis=(1, 2))


def _sizes(name: str, sizes: Sequence[int], count: int | None = None) -> tuple[int, ...]:
    """Returns `sizes` as a tuple of integers >= 1, `count` of them (or any positive number)."""
    known = tuple(sizes) if isinstance(sizes, Iterable) else ()
    if len(known) != count if count else not known:
        raise refusal(name, f"{count or 'one or more'} integers >= 1", sizes)
    return tuple(check_count(name, size) for size in known)


def _image_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    return _sizes("input_shape", input_shape, count=3)
