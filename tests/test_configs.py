"""Every experiment in `configs/` is one that can run, for each algorithm and for all."""

import math
import pathlib

import pytest

from entropix.cli.configs import known, read_config
from entropix.data import CATALOGUE
from entropix.experiment import ALGORITHMS
from entropix.experiment.method import build
from entropix.experiment.plan import budget_of, check_plan, entries

PAPERS = ["sgd", "entropy_sgd", "hj", "heat", "elastic_sgd"]
CONFIGS = ["digits", "mnist", "mnist:lenet", "cifar10"]
LARGE = [name for name in CONFIGS if name != "digits"]


def with_runs(name: str, runs: str) -> str:
    return f"{name}{',' if ':' in name else ':'}{runs}"


def runs_of(name: str) -> dict:
    return {run: (algorithm, p) for run, _, algorithm, p in entries(read_config(name))}


def test_all_configs_are_here():
    papers = {name.partition(":")[0] for name in CONFIGS}
    beside = {"language", "little_communication", "mnist_hard", "mnist_scope"}
    assert sorted(known()) == sorted(papers | beside)


def test_the_language_model_is_run_by_todays_optimisers():
    config = read_config("language")
    check_plan(config)
    runs = runs_of("language")
    assert {"adamw", "adamw_ema", "sam", "snoo", "schedule_free", "entropy_sgd"} <= runs.keys()
    assert config.problem == "entropix.experiment.language:language_model"


@pytest.mark.parametrize("batch", ["", "batch_32"])
def test_batches_of_the_language_model_see_equally_many_bytes(batch):
    config = read_config(f"language:{batch},snoo,sam" if batch else "language:snoo,sam")
    check_plan(config)
    assert config.batch_size * config.gradients_per_eval * config.num_evals == 8 * 2400


@pytest.mark.parametrize("data", ["wrong_0", "wrong_20", "wrong_40", "wrong_60", "few_300"])
def test_wrong_labels_and_few_examples(data):
    config = read_config(f"mnist_hard:{data}")
    check_plan(config)
    runs = {
        "sgd", "sam", "entropy_sgd", "hj", "heat", "heat_cold", "heat_1", "sgd_ema", "sgd_authors",
    }  # fmt: skip
    even = {
        "wrong_20": {"heat_even", "sam_even", "sgd_even", "hj_even"},
        "wrong_40": {"heat_even", "sam_even", "sgd_even", "entropy_sgd_wide", "hj_wide"},
        "wrong_60": {"heat_even", "sam_even", "sgd_even", "hj_even"},
    }.get(data, set())
    assert set(config.optimizers) == runs | even | ({"entropy_sgd_hot"} if even else set())
    assert all(config.search[run] == config.search[run.rpartition("_")[0]] for run in even)
    kind, _, number = data.partition("_")
    wrong, count = (int(number) / 100, 10_000) if kind == "wrong" else (0.0, int(number))
    assert (config.arguments.wrong, config.arguments.examples) == (wrong, count)


@pytest.mark.parametrize("work", ["language", "lenet"])
def test_replicas_that_communicate_little(work):
    """Four of them; the number in a run's name is that of gradients between two exchanges."""
    config = read_config(f"little_communication:{work}")
    check_plan(config)
    for name, (algorithm, p) in runs_of(f"little_communication:{work}").items():
        options = algorithm.all_options
        apart = options.get("num_steps", 1) * options.get("period", 1)
        assert (p, apart) == (4, int(name.partition("_")[2]) if name[-1] == "0" else 1)


def test_scopes_of_two_networks_differ_by_their_sizes_over_two_places():
    """gamma_0 of `mnistfc` over N is that of LeNet two places below."""
    sizes = {"mlp": 1_867_786, "lenet": 131_220}
    gammas = {}
    for network in sizes:
        name = f"mnist_scope:{network}," + ",".join(f"place_{k}" for k in range(6))
        check_plan(read_config(name))
        made = [(algorithm.all_options, build(algorithm, gradients=4800).gamma(239))
                for algorithm, _ in runs_of(name).values()]  # fmt: skip
        gammas[network] = [options["gamma"] for options, _ in made]
        whole = 0.999 ** (budget_of(read_config(f"mnist:{network}")).gradients / 20)
        for options, last in made:
            assert float(last) == pytest.approx(max(0.1, options["gamma"] * whole), rel=0.05)
    shares = {network: [g / sizes[network] for g in gammas[network]] for network in sizes}
    assert shares["mlp"][2:] == pytest.approx(shares["lenet"][:-2], rel=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_all_of_the_papers_algorithms_alone_and_together(name):
    check_plan(read_config(name))
    together = runs_of(name)
    assert [run for run in together if not run.endswith("_authors")] == PAPERS
    assert [together[run][1] for run in ("sgd", "elastic_sgd")] == [None, 3]
    for run in [*together, "parle"]:
        alone = read_config(with_runs(name, run))
        check_plan(alone)
        (made,) = runs_of(with_runs(name, run)).values()
        assert run == "parle" or made == together[run]


@pytest.mark.parametrize("name", CONFIGS)
def test_replicas_three_and_six(name):
    config = read_config(with_runs(name, "sgd,elastic_sgd,parle"), [("replicas", "3,6")])
    check_plan(config)
    names = ["sgd", "elastic_sgd_p3", "elastic_sgd_p6", "parle_p3", "parle_p6"]
    assert [(run, p) for run, _, _, p in entries(config)] == [
        *zip(names, (None, 3, 6, 3, 6), strict=True)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_and_labels_differ(name):
    config = read_config(name)
    assert config.name == {"mnist": "mnist_mlp", "mnist:lenet": "mnist_lenet"}.get(name, name)
    labels = [label for _, label, _, _ in entries(config)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", LARGE)
def test_all_runs_but_the_authors_end_at_the_same_share_of_their_rate(name):
    for run, (algorithm, _) in runs_of(name).items():
        option = algorithm.all_options
        assert all(0 < at < 1 for at in option["drop_at"])
        if not run.endswith("_authors"):
            assert option["drop_factor"] ** len(option["drop_at"]) == 25


@pytest.mark.parametrize(
    ("name", "epochs"), [("mnist", 120), ("mnist:lenet", 80), ("cifar10", 200)]
)
def test_runs_have_the_papers_length(name, epochs):
    config = read_config(name)
    size = CATALOGUE[config.dataset].num_train
    assert budget_of(config).gradients * config.batch_size / size == pytest.approx(epochs, abs=1)


def scopes(name: str, run: str) -> tuple[float, float, float]:
    """gamma at the beginning, at the end, and the step size."""
    (algorithm, p), gradients = runs_of(name)[run], budget_of(read_config(name)).gradients
    method = build(algorithm, gradients=gradients, replicas=p)
    last = math.ceil(gradients / method.cycle) - 1
    return float(method.gamma(0)), float(method.gamma(last)), algorithm.all_options["step_size"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("run", ["entropy_sgd", "hj"])
def test_the_inner_step_resolves_the_pull_to_the_end(name, run):
    """Langevin steps are stable while step_size / gamma < 2; scoping must stop before."""
    _, last, step_size = scopes(name, run)
    assert step_size / last < 2 * 0.8


@pytest.mark.parametrize("name", LARGE)
def test_scopes_begin_well_above_their_end(name):
    first, last, _ = scopes(name, "hj")
    assert first > 10 * last


@pytest.mark.parametrize("name", LARGE)
def test_elastic_sgds_scope_is_not_gone_after_a_tenth_of_the_run(name):
    """One update of Elastic-SGD is one gradient: scoped at every update, gamma would be."""
    (algorithm, p), gradients = runs_of(name)["elastic_sgd"], budget_of(read_config(name)).gradients
    gamma = build(algorithm, gradients=gradients, replicas=p).gamma
    assert gamma(gradients / p / 2) > 0.3 * gamma(0)


def authors(name: str, run: str) -> tuple[dict, int]:
    """The options of a run of the authors', and the outer steps of the whole run."""
    (algorithm, _), gradients = runs_of(name)[run], budget_of(read_config(name)).gradients
    return algorithm.all_options, gradients // build(algorithm, gradients=gradients).cycle


@pytest.mark.parametrize(
    ("name", "drops", "factor", "l2"),
    [
        ("mnist", (30 / 100, 60 / 100), 5, 0),
        ("mnist:lenet", (30 / 100, 60 / 100), 5, 0),
        ("cifar10", (60 / 200, 120 / 200, 180 / 200), 5, 1e-3),
    ],
)
def test_the_authors_sgd(name, drops, factor, l2):
    option, _ = authors(name, "sgd_authors")
    assert (option["learning_rate"], option["momentum"]) == (0.1, 0.9)
    assert option["drop_at"] == pytest.approx(drops)
    assert (option["drop_factor"], option["l2"]) == (factor, l2)


@pytest.mark.parametrize(
    ("name", "drops", "factor", "l2", "force"),
    [
        ("mnist", (40 / 100,), 10, 0, 1e-4),
        ("mnist:lenet", (40 / 100,), 10, 0, 1e-4),
        ("cifar10", (60 / 200, 120 / 200), 5, 1e-3, 0.03),
    ],
)
def test_the_authors_entropy_sgd(name, drops, factor, l2, force):
    option, steps = authors(name, "entropy_sgd_authors")
    assert (option["learning_rate"], option["momentum"]) == (1.0, None)
    assert (option["output"], option["inner"]) == ("displacement", "nesterov")
    assert [option[n] for n in ("num_steps", "step_size", "averaging")] == [20, 0.1, 0.75]
    assert option["temperature"] == pytest.approx(1e-4**2)  # their noise is 1e-4 sqrt(2 step_size)
    assert option["drop_at"] == pytest.approx(drops)
    assert (option["drop_factor"], option["l2"]) == (factor, l2)
    algorithm, _ = runs_of(name)["entropy_sgd_authors"]
    gamma = build(algorithm, gradients=20 * steps).gamma
    for t in (0, 1, 100, steps):  # 1/gamma, their force, grows by a thousandth an outer step
        assert 1 / float(gamma(t)) == pytest.approx(force * (1 + 1e-3) ** t, rel=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_searched_scope_is_below_its_end(name):
    config = read_config(with_runs(name, ",".join([*PAPERS, "parle"])))
    for run, _, algorithm, _ in entries(config):
        if "gamma" in algorithm.all_options:
            assert config.search[run].gamma[0] >= algorithm.all_options["gamma_end"]


@pytest.mark.parametrize("name", sorted(known()))
def test_the_header_states_the_command(name):
    assert f"entropix compare --config={name}" in known()[name].read_text().split('"""')[1]


def test_a_config_of_algorithms_beyond_the_paper_has_them_all(tmp_path):
    path = pathlib.Path(tmp_path / "mine.py")
    path.write_text(
        "from entropix.experiment import make_config\n"
        "def get_config(runs=''):\n"
        "    return make_config(dataset='digits', model={'name': 'mlp'}, algorithms=runs,\n"
        "                       optimizers={'adamw': {}, 'snoo': {}})\n"
    )
    assert ALGORITHMS["adamw"].beyond_the_paper
    assert list(runs_of(str(path))) == ["adamw", "snoo"]
