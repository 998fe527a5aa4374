"""Problems and runs that compile in a moment, for tests of what trains them."""

import jax
import jax.numpy as jnp
import numpy as np

from entropix.experiment import Budget, Problem, Settings, algorithm
from entropix.experiment.making import make_runs

# A checkpoint after every call.
ALWAYS = Settings(checkpoint_seconds=0.0, checkpoints_kept=3)


def arrays(seed: int = 0, size: int = 96) -> dict[str, np.ndarray]:
    """Examples of a linear law with noise."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(size, 3)).astype(np.float32)
    noise = 0.3 * draw.normal(size=size)
    return {"x": x, "y": (x @ np.array([1.0, -2.0, 0.5]) + noise).astype(np.float32)}


def predict(params, x):
    return x @ params["w"] + params["b"]


def squares(params, model_state, batch):
    return jnp.mean((predict(params, batch["x"]) - batch["y"]) ** 2)


def misses(params, model_state, batch):
    return 100 * jnp.mean(jnp.abs(predict(params, batch["x"]) - batch["y"]) > 0.5)


def line(**changes) -> Problem:
    """A regression whose loss uses its key, and carries a state along."""

    def init(key):
        return {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}, {"mean": jnp.zeros(3)}

    def loss(params, model_state, batch, key):
        kept = jax.random.bernoulli(key, 0.9, batch["x"].shape)
        mean = 0.9 * model_state["mean"] + 0.1 * jnp.mean(batch["x"], axis=0)
        return squares(params, None, batch | {"x": batch["x"] * kept}), {"mean": mean}

    fields = {
        "name": "line",
        "init": init,
        "loss": loss,
        "data": arrays(0),
        "validation": arrays(1, 40),
        "batch_size": 8,
        "measures": {"loss": (squares, "lower", "nats"), "error": (misses, "lower", "%")},
        "apply": lambda params, model_state, x: predict(params, x),
    }
    return Problem(**fields | changes)


def one_run(
    name="hj", problem=None, *, budget=(40, 2), seeds=2, replicas=2, settings=ALWAYS, **options
):
    """The run of one algorithm of the registry, or of a transformation."""
    given = algorithm(name, **options) if isinstance(name, str) else name
    title = name if isinstance(name, str) else "run"
    (run,) = make_runs(
        problem or line(), {title: given}, Budget(*budget), seeds, replicas, settings
    )
    return run


def bowl(curvature=(1.0, 3.0), minimum=(2.0, -1.0), start=(0.0, 0.0)) -> Problem:
    """A quadratic loss that no data enter: its gradient is curvature (x - minimum)."""
    a, c = jnp.asarray(curvature), jnp.asarray(minimum)

    def loss(x, model_state, batch, key):
        return 0.5 * jnp.sum(a * (x - c) ** 2), model_state

    return Problem(
        name="bowl",
        init=lambda key: (jnp.asarray(start), ()),
        loss=loss,
        data=np.zeros((2, 1), np.float32),
        batch_size=1,
        measures={"loss": lambda x, model_state, batch: loss(x, (), batch, None)[0]},
    )
