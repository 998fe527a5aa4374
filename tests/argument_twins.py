"""One update of every algorithm in NumPy, with a bound on the rounding errors of float32.

Trees are flat vectors here, with an axis of replicas in front. The gradient of inner step i at y is
c_i y, so that the order of steps and mini-batches shows.
"""

from typing import Any, NamedTuple

import numpy as np

EPS, TINY, LARGE = 2.0**-24, 2.0**-126, 1e38


class Ball:
    """Numbers in double precision, and how far float32 may be off; infinitely where it overflows.

    Subnormal numbers count as zero: compiled programs may flush them.
    """

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        self.value = np.asarray(value, float)
        rounding = np.asarray(error) + EPS * np.abs(self.value) + TINY
        bad = ~(np.abs(self.value) < LARGE) | np.isnan(rounding)
        self.error = np.where(bad, np.inf, rounding)

    def __add__(self, other):
        other = ball(other)
        return Ball(self.value + other.value, self.error + other.error)

    def __neg__(self):
        return Ball(-self.value, self.error)

    def __sub__(self, other):
        return self + -ball(other)

    def __rsub__(self, other):
        return ball(other) - self

    def __mul__(self, other):
        other = ball(other)
        error = np.abs(self.value) * other.error + np.abs(other.value) * self.error
        return Ball(self.value * other.value, error + self.error * other.error)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other):
        other = ball(other)
        if np.all(np.isinf(other.value)):
            return self * 0.0
        value, least = self.value / other.value, np.abs(other.value) - other.error
        error = (self.error + np.abs(value) * other.error) / np.where(least > 0, least, np.nan)
        return Ball(value, error)

    def sqrt(self):
        root = np.sqrt(self.value)
        slope = self.error / np.where(root > 0, root, np.nan)
        return Ball(root, np.fmin(np.sqrt(self.error), slope))

    def sum(self, axis):
        return Ball(self.value.sum(axis, keepdims=True), self.error.sum(axis, keepdims=True))


def joined(*balls):
    """Balls one after the other."""
    made = Ball(np.concatenate([b.value for b in balls]))
    made.error = np.concatenate([b.error for b in balls])
    return made


def ball(value: Any) -> Ball:
    return value if isinstance(value, Ball) else Ball(value)


def gradient(y: Ball, i: int) -> Ball:
    return y * (1 + i / 8)


def mean_of_replicas(x: Ball) -> Ball:
    return x.sum(0) / len(x.value)


# Inner transformations, which keep a state.


class Trace:
    def __init__(self, decay):
        self.decay, self.trace = decay, ball(0.0)

    def __call__(self, g, y):
        self.trace = g + self.decay * self.trace
        return self.trace


class AdamW:
    def __init__(self):
        self.m, self.v, self.count = ball(0.0), ball(0.0), 0

    def __call__(self, g, y):
        self.count += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 1e-3 * (g * g)
        m, v = self.m / (1 - 0.9**self.count), self.v / (1 - 0.999**self.count)
        return m / (v.sqrt() + 1e-8) + 0.1 * y


# Relaxations: begin at x; a gradient at the point; what the outer optimiser gets.


class Walk:
    """The chain y <- y - eta [d + (y - x)/gamma] + sqrt(2 eta T) e, and its average."""

    def __init__(self, x, a, inner, noise):
        self.x = self.y = self.mean = x
        self.a, self.inner, self.noise, self.count = a, inner, noise, 0

    def point(self):
        return self.y

    def step(self, g):
        a, y = self.a, self.y
        d = self.inner(g, y)
        if a.complete:  # the update of a complete optimiser
            y = y - d - ball(a.step_size) / a.gamma * (y - self.x)
        else:
            y = y - a.step_size * (d + (y - self.x) / a.gamma)
        if a.temperature:
            width = ball(2 * a.step_size).sqrt() * ball(a.temperature).sqrt()
            y = y + width * self.noise(0, self.count)
        self.y, self.count = y, self.count + 1
        if a.averaging == "linear":
            old = self.mean if self.count > 1 else y
            self.mean = old + (y - old) / self.count
        else:
            alpha = ball(a.averaging)
            self.mean = alpha * self.mean + (1 - alpha) * y if a.averaging else y

    def result(self):
        shift = self.x - self.mean
        return shift / self.a.gamma if self.a.output == "gradient" else shift


class GradientForm:
    """The displacement y <- y - eta [y/gamma - d] of (34), and the last gradient at x - y."""

    def __init__(self, x, a, inner, noise):
        self.x, self.y, self.a, self.inner = x, ball(0.0) * x, a, inner

    def point(self):
        return self.x - self.y

    def step(self, g):
        self.last, d = g, self.inner(g, self.point())
        self.y = self.y - self.a.step_size * (self.y / self.a.gamma - d)

    def result(self):
        return self.last * (1.0 if self.a.output == "gradient" else self.a.gamma)


class Heat:
    """The mean of gradients at Gaussian points."""

    def __init__(self, x, a, inner, noise, outer=0):
        self.x, self.a, self.noise, self.outer = x, a, noise, outer
        self.mean, self.count = ball(0.0), 0

    def point(self):
        if not self.a.temperature:
            return self.x
        width = ball(self.a.gamma).sqrt() * ball(self.a.temperature).sqrt()
        return self.x + width * self.noise(self.outer, self.count)

    def step(self, g):
        self.mean, self.count = self.mean + g / self.a.num_steps, self.count + 1

    def result(self):
        return self.mean


class Sharpness:
    """The gradient at the top of a climb, of one mini-batch."""

    def __init__(self, x, a, inner, noise):
        self.x = self.y = x
        self.a, self.last = a, None

    def point(self):
        return self.y

    def step(self, g):
        self.last = g
        w = Ball(np.abs(self.x.value)) if self.a.adaptive else ball(1.0)
        slope = w * g
        norm = (slope * slope).sum(-1).sqrt()
        self.y = self.y + ball(self.a.rho) / norm * (w * slope)

    def result(self):
        return self.last


class Arguments(NamedTuple):
    """What the twins read; every algorithm has some of it."""

    num_steps: int = 1
    gamma: float = 1.0
    step_size: float = 0.0
    temperature: float = 0.0
    averaging: Any = 0.0
    output: str = "gradient"
    rho: float = 0.0
    adaptive: bool = False
    complete: bool = False


def relaxed(kind, x, a, inner, noise, outer):
    """The update of `relax`: a whole outer step, whose relaxed gradient goes to `outer`."""
    chain = kind(x, a, inner, noise)
    for i in range(a.num_steps):
        chain.step(gradient(chain.point(), 0 if kind is Sharpness else i))
    return outer(chain.result(), x)


def spread(kind, x, a, inner, noise, outer):
    """The first update of `stepwise`, whose gradient is at x."""
    chain = kind(x, a, inner, noise)
    chain.step(gradient(x, 0))
    if a.num_steps > 1:
        return chain.point() - x
    moved = x + outer(chain.result(), x)
    if kind is Heat:  # already at the first point of the next outer step
        moved = Heat(moved, a, inner, noise, outer=1).point()
    return moved - x


def nesterov(learning_rate, momentum):
    """The first step of SGD with Nesterov momentum."""
    return lambda g, x: -(ball(learning_rate) * (g + ball(momentum or 0.0) * g))
