"""A small decoder of tokens: the language model of the experiments."""

import jax
import jax.numpy as jnp
from flax import nnx

from entropix.models.streams import streams
from entropix.transforms.checks import check_count


class Block(nnx.Module):
    """Causal attention and a hidden layer, each after a normalisation and around a shortcut.

    Args:
      width: features of a token.
      heads: of the attention, a divisor of `width`.
      rngs: of initial parameters.
    """

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.before_attention = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.attended = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.before_hidden = nnx.LayerNorm(width, rngs=rngs)
        self.hidden = nnx.Linear(width, 4 * width, rngs=rngs)
        self.out = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns features of the same shape, `(batch, length, width)`."""
        split = jnp.split(self.query_key_value(self.before_attention(x)), 3, axis=-1)
        query, key, value = (part.reshape(*x.shape[:2], self.heads, -1) for part in split)
        attended = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attended(attended.reshape(x.shape))
        return x + self.out(nnx.gelu(self.hidden(self.before_hidden(x))))


class Decoder(nnx.Module):
    """Logits of the next token at every place.

    Args:
      vocabulary: number of tokens.
      length: places, at most.
      width: features of a token.
      layers: blocks.
      heads: of the attention, a divisor of `width`.
      rngs: of initial parameters: `nnx.Rngs`, a key or a seed.

    Raises:
      ValueError: for sizes that are no integers >= 1, or `heads` that do not divide `width`; from
        a call, for more tokens than `length`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> model = Decoder(16, 8, width=4, layers=1, heads=2, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8), jnp.int32)).shape
      (2, 8, 16)
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        *,
        rngs: nnx.Rngs | jax.Array | int,
    ):
        rngs = streams(rngs)
        sizes = {"vocabulary": vocabulary, "length": length, "width": width, "heads": heads}
        for name, value in (sizes | {"layers": layers}).items():
            check_count(name, value)
        if width % heads:
            raise ValueError(f"heads must divide width={width}; got heads={heads}.")
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.places = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns logits `(batch, n, vocabulary)` of tokens `(batch, n)`, each below `vocabulary`.

        (Logits of a token that is none are NaN.)
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.places.num_embeddings:
            raise ValueError(
                f"tokens must have shape (batch, n) with n <= length={self.places.num_embeddings}; "
                f"got shape {tokens.shape}."
            )
        x = self.tokens(tokens) + self.places(jnp.arange(tokens.shape[1]))[None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
