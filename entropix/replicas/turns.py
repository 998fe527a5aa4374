"""One replica's step, evaluated for many: side by side, in turns, over devices, or all of these.

`lax.map` cannot carry a collective over a named axis: where one replica waits for the others, a
loop over replicas would have to stop in the middle. So the step is traced for one replica, and its
program cut where replicas meet. What lies between two cuts concerns one replica alone and runs for
all that share a device, by `vmap` or in turns by `lax.map`; at a cut all their values are there,
and the collective is a reduction over them and then over the devices.

A conditional or a loop with a collective inside is taken by all replicas or by none, as on real
devices, where anything else would block. So it stays a conditional, whatever the layout: what it
skips is neither computed nor communicated.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import Array, lax


class Value(NamedTuple):
    """A value of the program: of all replicas on this device (a leading axis), or their common."""

    array: Any
    mapped: bool


class Turns(NamedTuple):
    """Evaluates the program of a step for the replicas that share a device.

    Attributes:
      axis_name: the replicas' axis in the program.
      local: replicas on this device.
      device_axis: mapped axis of the devices that hold the other replicas, or None.
      each: "vmap" or "map": how the replicas of a device share it.
      index: None; inside a part that runs for one replica, that replica's index.
    """

    axis_name: str
    local: int
    device_axis: str | None
    each: str
    index: Any = None

    def __call__(self, program: jex.ClosedJaxpr, values: Sequence[Value]) -> list[Value]:
        """Returns what `program` returns for `values`."""
        jaxpr = program.jaxpr
        env = dict(zip(jaxpr.invars, values, strict=True))
        env |= {v: Value(c, False) for v, c in zip(jaxpr.constvars, program.consts, strict=True)}

        def read(atom: Any) -> Value:
            return Value(atom.val, False) if isinstance(atom, jex.Literal) else env[atom]

        for is_cut, eqns, read_later in _parts(jaxpr, self._is_cut):
            if is_cut:
                for eqn in eqns:
                    found = self._meet(eqn, [read(v) for v in eqn.invars])
                    env.update(zip(eqn.outvars, found, strict=True))
            else:
                part = _closed(jaxpr, eqns, read_later)
                found = self._apart(part, [read(v) for v in part.jaxpr.invars])
                env.update(zip(part.jaxpr.outvars, found, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def spread(self, value: Value) -> Array:
        """The value with an axis of replicas, unless this is one replica's part."""
        if value.mapped or self.index is not None:
            return value.array
        return jnp.broadcast_to(value.array, (self.local, *jnp.shape(value.array)))

    def _is_cut(self, eqn: jex.JaxprEqn) -> bool:
        if self.index is None:
            return _communicates(eqn, self.axis_name)
        return _concerns(eqn, self.axis_name)

    def _apart(self, part: jex.ClosedJaxpr, values: Sequence[Value]) -> list[Value]:
        """Runs a part that concerns one replica alone; once, if it is the same for all."""
        asks_index = any(_concerns(eqn, self.axis_name) for eqn in part.jaxpr.eqns)
        if not asks_index and not any(v.mapped for v in values):
            found = jex.jaxpr_as_fun(part)(*(v.array for v in values))
            return [Value(array, False) for array in found]

        def one(index: Array, *own: Array) -> list[Array]:
            arrays = iter(own)
            inputs = [Value(next(arrays) if v.mapped else v.array, False) for v in values]
            return [value.array for value in self._replace(index=index)(part, inputs)]

        mapped = self._indices(), *(v.array for v in values if v.mapped)
        if self.local == 1:
            found = [jnp.expand_dims(x, 0) for x in one(*(x[0] for x in mapped))]
        elif self.each == "vmap":
            found = jax.vmap(one)(*mapped)
        else:
            found = lax.map(lambda own: one(*own), mapped)
        return [Value(array, True) for array in found]

    def _indices(self) -> Array:
        first = 0 if self.device_axis is None else lax.axis_index(self.device_axis) * self.local
        return first + jnp.arange(self.local, dtype=jnp.int32)

    def _meet(self, eqn: jex.JaxprEqn, values: list[Value]) -> list[Value]:
        """Evaluates an equation that concerns all replicas (or, in one's part, asks its index)."""
        name = eqn.primitive.name
        if name == "axis_index":
            return [Value(self.index, False)]
        if eqn.params.get("name") == _AGREED:
            return [Value(_one(value), False) for value in values]
        if name in _REDUCTIONS:
            return [self._reduce(value, eqn.params, *_REDUCTIONS[name]) for value in values]
        if name in _STRUCTURES:
            return _STRUCTURES[name](self, eqn.params, values)
        inner = list(jex.jaxprs_in_params(eqn.params))
        if len(inner) != 1 or len(inner[0].invars) != len(values):
            raise NotImplementedError(
                f"replicas cannot run {name!r} over the axis {self.axis_name!r}; they know psum, "
                "pmean, pmax, pmin, axis_index and axis_size. Rewrite the step with these."
            )
        # A call: jit, checkpoint, custom_jvp and so on.
        return self(_close(eqn.params, inner[0]), values)

    def _reduce(self, value: Value, params: dict[str, Any], here: Any, there: Any) -> Value:
        """A reduction over the replicas on this device, and then over the devices."""
        positional = tuple(a + value.mapped for a in params["axes"] if isinstance(a, int))
        named = tuple(a for a in params["axes"] if not isinstance(a, int) and a != self.axis_name)
        if params["axis_index_groups"] is not None:
            raise NotImplementedError("replicas know no axis_index_groups: reduce over all.")
        array = here(value.array, axis=positional) if positional else value.array
        array = here(self.spread(value._replace(array=array)), axis=0)
        names = named if self.device_axis is None else (self.device_axis, *named)
        return Value(there(array, names) if names else array, False)

    def _cond(self, params: dict[str, Any], values: list[Value]) -> list[Value]:
        which, *operands = values

        def taken(branch: jex.ClosedJaxpr) -> Callable[..., list[Array]]:
            return lambda *arrays: self._run(branch, operands, arrays)

        branches = [taken(branch) for branch in params["branches"]]
        return self._mapped(lax.switch(_one(which), branches, *(v.array for v in operands)))

    def _scan(self, params: dict[str, Any], values: list[Value]) -> list[Value]:
        split = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, start, xs = values[: split[0]], values[split[0] : split[1]], values[split[1] :]
        like = [*consts, *self._mapped(start), *xs]

        def body(carry: list[Array], own: list[Array]) -> tuple[list[Array], list[Array]]:
            arrays = [*(v.array for v in consts), *carry, *own]
            found = self._run(params["jaxpr"], like, arrays)
            return found[: len(start)], found[len(start) :]

        end, ys = lax.scan(
            body,
            [self.spread(v) for v in start],
            [jnp.swapaxes(v.array, 0, 1) if v.mapped else v.array for v in xs],
            length=params["length"], reverse=params["reverse"], unroll=params["unroll"],
        )  # fmt: skip
        ys = ys if self.index is not None else [jnp.swapaxes(y, 0, 1) for y in ys]
        return self._mapped([*end, *ys])

    def _while(self, params: dict[str, Any], values: list[Value]) -> list[Value]:
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_cond, of_body = values[: split[0]], values[split[0] : split[1]]
        start = values[split[1] :]
        carried = self._mapped([self.spread(v) for v in start])

        def go_on(arrays: Any) -> Array:
            inputs = [*(v.array for v in of_cond), *arrays]
            (found,) = self._run(params["cond_jaxpr"], [*of_cond, *carried], inputs)
            return _one(Value(found, self.index is None))

        def body(arrays: Any) -> Any:
            inputs = [*(v.array for v in of_body), *arrays]
            return self._run(params["body_jaxpr"], [*of_body, *carried], inputs)

        return self._mapped(lax.while_loop(go_on, body, [v.array for v in carried]))

    def _run(
        self, program: jex.ClosedJaxpr, like: Sequence[Value], arrays: Sequence[Any]
    ) -> list[Array]:
        """Evaluates for `arrays` that are mapped as `like` are; all results are mapped."""
        values = [Value(array, v.mapped) for array, v in zip(arrays, like, strict=True)]
        return [self.spread(value) for value in self(program, values)]

    def _mapped(self, arrays: Iterable[Any]) -> list[Value]:
        return [Value(array, self.index is None) for array in arrays]


# The jitted function of `entropix.transforms.axes` by which a counter says that it is common.
_AGREED = "agreed_by_all"
_REDUCTIONS = {
    "psum": (jnp.sum, lax.psum),
    "pmax": (jnp.max, lax.pmax),
    "pmin": (jnp.min, lax.pmin),
}
_STRUCTURES = {"cond": Turns._cond, "scan": Turns._scan, "while": Turns._while}


def _one(value: Value) -> Array:
    """Of a value that must be the same for all replicas, the first one's."""
    return value.array[0] if value.mapped else value.array


def _concerns(eqn: jex.JaxprEqn, axis_name: str) -> bool:
    """Whether the equation, or one inside it, knows of the axis."""
    return any(getattr(effect, "name", None) == axis_name for effect in eqn.effects)


def _communicates(eqn: jex.JaxprEqn, axis_name: str) -> bool:
    """Whether it needs values of other replicas: all that concern the axis, but for its index."""
    if not _concerns(eqn, axis_name) or eqn.primitive.name == "axis_index":
        return False
    inside = [e for jaxpr in jex.jaxprs_in_params(eqn.params) for e in jaxpr.eqns]
    return not inside or any(_communicates(e, axis_name) for e in inside)


def _parts(jaxpr: jex.Jaxpr, is_cut: Callable[[jex.JaxprEqn], bool]) -> list[Any]:
    """Groups neighbouring equations that are alike, each with what is read after it."""
    groups = [(cut, list(eqns)) for cut, eqns in itertools.groupby(jaxpr.eqns, is_cut)]
    read, parts = set(_variables(jaxpr.outvars)), []
    for cut, eqns in reversed(groups):
        parts.append((cut, eqns, set(read)))
        read.update(v for eqn in eqns for v in _variables(eqn.invars))
    return parts[::-1]


def _closed(jaxpr: jex.Jaxpr, eqns: list[jex.JaxprEqn], read_later: set[Any]) -> jex.ClosedJaxpr:
    """The equations as a program of their own: from all they read to what is read of them."""
    made = dict.fromkeys(v for eqn in eqns for v in eqn.outvars)
    read = dict.fromkeys(v for eqn in eqns for v in _variables(eqn.invars))
    part = jaxpr.replace(
        constvars=[], invars=[v for v in read if v not in made],
        outvars=[v for v in made if v in read_later], eqns=eqns,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )  # fmt: skip
    return jex.ClosedJaxpr(part, ())


def _close(params: dict[str, Any], inner: jex.Jaxpr) -> jex.ClosedJaxpr:
    """The closed form of the only program among the parameters of a call."""
    closed = [p for p in params.values() if isinstance(p, jex.ClosedJaxpr)]
    return closed[0] if closed else jex.ClosedJaxpr(inner, ())


def _variables(atoms: Iterable[Any]) -> list[Any]:
    return [atom for atom in atoms if isinstance(atom, jex.Var)]
