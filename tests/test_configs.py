"""Every experiment in `configs/` is one that can run, for each algorithm and for all."""

import importlib.util
import pathlib

import pytest

from entropix.data import CATALOGUE
from entropix.training import check_config, runs
from entropix.training.config import BEYOND_THE_PAPER, DEFAULTS
from entropix.training.record import read_choice

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))


def get_config(path: pathlib.Path, algorithms: str = ""):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(algorithms)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_all_five_algorithms_alone_and_together(path):
    config = get_config(path)
    check_config(config)
    together = runs(config)
    assert list(together) == [a for a in DEFAULTS if a not in BEYOND_THE_PAPER]
    assert [together[a].optimizer.get("replicas") for a in ("sgd", "elastic_sgd")] == [None, 3]
    everything = get_config(path, ",".join(DEFAULTS))
    check_config(everything)
    for algorithm, run in runs(everything).items():
        assert runs(get_config(path, algorithm))[algorithm].to_dict() == run.to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_replicas_three_and_six(path):
    config = get_config(path, "sgd,elastic_sgd,parle")
    config.replicas = (3, 6)
    check_config(config)
    names = ["sgd", "elastic_sgd_p3", "elastic_sgd_p6", "parle_p3", "parle_p6"]
    assert list(runs(config)) == names
    assert [run.optimizer.get("replicas") for run in runs(config).values()] == [None, 3, 6, 3, 6]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_learning_rates_drop_within_the_run(path):
    config = get_config(path)
    if config.dataset not in CATALOGUE:
        pytest.skip("the digits are trained at one rate")
    gradients = config.num_evals * config.gradients_per_eval
    epochs = gradients * config.batch_size / CATALOGUE[config.dataset].num_train
    for run in runs(config).values():
        drops = run.optimizer.drop_at
        assert list(drops) == sorted(drops)
        assert 0 < drops[-1] < epochs


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_inner_step_resolves_the_pull_to_the_end(path):
    """Langevin steps are stable while step_size / gamma < 2; scoping must stop before."""
    config = get_config(path, ",".join(DEFAULTS))
    gradients = config.num_evals * config.gradients_per_eval
    for run in runs(config).values():
        option = run.optimizer
        if "step_size" in option:
            last = option.gamma * (1 - option.scoping_rate) ** (gradients / option.num_steps)
            assert option.step_size / max(last, option.gamma_end) < 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_states_the_command(path):
    header = path.read_text().split('"""')[1]
    assert f"entropix compare --config=configs/{path.name}" in header


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_values_are_those_that_the_record_chose(path):
    single = runs(get_config(path))
    for algorithm, choice in read_choice(path).items():
        chosen = {name: single[algorithm].optimizer[name] for name in choice}
        assert chosen == pytest.approx(choice, rel=1e-3), algorithm


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_searched_scope_is_below_its_end(path):
    config = get_config(path, ",".join(DEFAULTS))
    for algorithm, run in runs(config).items():
        if "gamma" in run.optimizer:
            assert config.search[algorithm].gamma[0] >= run.optimizer.gamma_end
