import pytest
from entropix.training.config import DEFAULTS, cycle

from entropix.training import check_config, experiment, runs

ALL = {name: {} for name in DEFAULTS}


def make(algorithms="", optimizers=ALL, model=None, **options):
    model = model or {"name": "mlp"}
    return experiment(
        dataset="digits", model=model, optimizers=optimizers, algorithms=algorithms, **options
    )


def test_no_suffix_means_all_algorithms_in_the_papers_order():
    assert list(runs(make())) == ["sgd", "entropy_sgd", "hj", "heat", "elastic_sgd"]


def test_one_algorithm_becomes_the_optimizer():
    config = make("hj", {"hj": {"gamma": 7.0}, "sgd": {}})
    assert config.optimizer.gamma == 7.0
    assert config.optimizer.num_steps == 5
    assert list(runs(config)) == ["hj"]


def test_several_algorithms():
    assert list(runs(make("hj, sgd"))) == ["sgd", "hj"]


def test_a_single_run_is_the_same_from_either_spelling():
    assert runs(make())["hj"].to_dict() == runs(make("hj"))["hj"].to_dict()


def test_what_could_be_searched_is_no_part_of_a_run():
    config = make("hj", search={"hj": {"gamma": (1.0, 2.0)}})
    assert config.search.hj.gamma == (1.0, 2.0)
    assert runs(config)["hj"].to_dict() == runs(make("hj"))["hj"].to_dict()


def test_cycles():
    optimizers = {name: run.optimizer for name, run in runs(make()).items()}
    cycles = {name: cycle(optimizer) for name, optimizer in optimizers.items()}
    assert cycles == {"sgd": 1, "entropy_sgd": 20, "hj": 5, "heat": 20, "elastic_sgd": 3}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make("hjj"), "unknown algorithm 'hjj'.*Did you mean 'hj'"),
        (lambda: make(optimizers={"hj": {"gama": 1.0}}), "'gama'.*Did you mean 'gamma'"),
        (lambda: make(optimizers={"sgd": {"gamma": 1.0}}), "option of optimizer sgd 'gamma'"),
        (lambda: make(model={"name": "mpl"}), "unknown model 'mpl'.*Did you mean 'mlp'"),
        (lambda: make(model={"name": "mlp", "width": 3}), "'width'.*Did you mean 'widths'"),
        (lambda: make(search={"hjj": {}}), "algorithm of search 'hjj'.*Did you mean 'hj'"),
        (lambda: make(search={"hj": {"gama": (1, 2)}}), "search hj 'gama'.*Did you mean 'gamma'"),
        (lambda: make(search={"sgd": {"gamma": (1, 2)}}), "option of search sgd 'gamma'"),
        (lambda: make(num_eval=3), "'num_eval'.*Did you mean 'num_evals'"),
    ],
)
def test_unknown_names_suggest_the_nearest(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_override_is_an_error():
    config = make("hj")
    with pytest.raises(AttributeError, match="gamma"):
        config.optimizer.gama = 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradients_per_eval": 50}, "multiple of the 20 gradients of one outer step of entropy"),
        ({"seeds": 0}, "seeds must be >= 1; got config.seeds=0"),
        ({"batch_size": -1}, "batch_size must be >= 1"),
        ({"num_evals": 0}, "num_evals must be >= 1"),
        (
            {"search": {"hj": {"gamma": (0, 1)}}},
            r"0 < low <= high.*config.search.hj.gamma=\(0, 1\)",
        ),
        ({"search": {"sgd": {"learning_rate": (2, 1)}}}, "learning_rate=.2, 1"),
        ({"search": {"sgd": {"learning_rate": 0.1}}}, "learning_rate=0.1"),
        ({"seed_layout": "pmap"}, "seed_layout must be one of auto, vmap, map; got .*='pmap'"),
        ({"layout": "threads"}, "layout must be one of auto, vmap, pmap, shard_map; got"),
        ({"replica_start": "none"}, "replica_start must be one of same, different; got"),
        ({"devices": -1}, "devices must be >= 0; got config.devices=-1"),
        ({"replicas": (3, 0)}, r"replicas must be numbers >= 1; got config.replicas=\(3, 0\)"),
        ({"replicas": ()}, "replicas must be numbers >= 1"),
        ({"replicas": (7,)}, "multiple of the 7 gradients .* elastic_sgd"),
    ],
)
def test_bad_values_are_refused_before_work(options, message):
    with pytest.raises(ValueError, match=message):
        check_config(make(**options))
