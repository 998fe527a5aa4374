"""Programs of equal runs are compiled once for all tests of a file."""

import pytest

from entropix.runs import train as train_module


@pytest.fixture(scope="module")
def compiled_once():
    """A process that continues compiles anew; here one compilation serves all that are equal."""
    make_programs, known = train_module.make_programs, {}

    def remember(run):
        settings = run.settings.layout, run.settings.eval_train_examples
        key = repr((run.identity, run.seeds, settings))
        if key not in known:
            known[key] = make_programs(run)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "make_programs", remember)
        yield
