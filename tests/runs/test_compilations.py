"""A run compiles its programs before the first evaluation, and nothing later."""

import jax
import pytest
from small import Settings, line, one_run

from entropix.runs.checkpoint import Checkpoints
from entropix.runs.loop import Loop
from entropix.training.programs import make_programs


@pytest.mark.parametrize("name", ["sgd", "hj", "elastic_sgd", "snoo"])
def test_nothing_is_compiled_after_the_first_evaluation(name, tmp_path, compilations):
    options = {"num_steps": 5} if name == "snoo" else {"gamma_end": 0.5} if name == "hj" else {}
    settings = Settings(checkpoint_seconds=0.0)
    run = one_run(name, line(), budget=(120, 6), seeds=1, settings=settings, **options)
    jax.clear_caches()
    seen = []  # pairs: evaluations so far, compilations so far
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        loop = Loop(run, make_programs(run), checkpoints, tmp_path)
        loop.run(lambda: seen.append((len(loop.record.rows), len(compilations))), None)
    first = next(compiled for rows, compiled in seen if rows == 1)
    assert first > 0
    assert seen[-1][0] == 6
    assert {compiled for rows, compiled in seen if rows > 1} == {first}
