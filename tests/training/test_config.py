"""The configuration of a run: what is refused, by which name."""

from pathlib import Path

import pytest
import yaml

from derain.training.config import OptimiserConfig, TrainConfig, read_config, read_tree
from derain.training.models import build

MINIMAL = {"network": {"name": "daiam-nano"}, "optimiser": {"iterations": 6}, "out": "runs/x"}


@pytest.fixture
def written(tmp_path: Path):
    def write(tree: object) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return path

    return write


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        read_config(path, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_overrides_reach_into_the_tree_and_may_make_new_branches(written):
    path = written(MINIMAL)
    config = read_config(path, ["optimiser.batch=3", "rain.kinds=drops", "data.folders=[a, b]", "seed=9"])
    assert (config.optimiser.batch, config.rain.kinds, config.data.folders, config.seed) == (3, "drops", ("a", "b"), 9)
    assert config.optimiser.iterations == 6
    assert read_config(path) == TrainConfig(**MINIMAL)


def test_a_resolved_configuration_reads_back_as_itself(written):
    config = read_config(written(MINIMAL), ["network.options={encoder_steps: 2}"])
    again = read_config(written(yaml.safe_dump(yaml.safe_load(config.model_dump_json()))))
    assert again == config


def test_the_configurations_that_ship_with_their_weights_are_valid(repository):
    paths = list((repository / "training/weights").glob("*.yaml"))
    assert paths
    for path in paths:
        config = read_config(path)
        assert config.network.name == path.stem.partition(".")[0]
        assert config.out.name == path.stem, "each stage leaves its run where the next one begins"


@pytest.mark.parametrize("name", ["daiam-edge", "daiam"])
def test_the_configurations_for_one_gpu_are_valid(repository, name):
    config = read_config(repository / "training/configs" / f"{name}.yaml")
    assert config.network.name == config.out.name == name
    assert build(name, **config.network.options)
    assert (config.machine.precision, config.machine.channels_last) == ("bf16-mixed", True)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"speed": 3}, ["speed is unknown, known are: network, data, rain, loss,"]),
        (
            {"optimiser": {"iterations": 6, "lr": 0.1}},
            ["optimiser.lr is unknown, known are: iterations, batch, learning_rate,"],
        ),
        ({"optimiser": {"iterations": "many"}}, ["optimiser.iterations is 'many'", "valid integer"]),
        ({"optimiser": {"iterations": 0}}, ["optimiser.iterations is 0", "greater than 0"]),
        ({"rain": {"strength": 2}}, ["rain.strength is 2", "less than or equal to 1"]),
        ({"rain": {"wiper": 4}}, ["rain.wiper is 4, but patches are stills, which no wiper wipes"]),
        ({"network": "daiam-nano"}, ["network is 'daiam-nano'"]),
        ({"optimiser": {}}, ["optimiser.iterations is missing"]),
        ({"seed": -1}, ["seed is -1", "greater than or equal to 0"]),
        ({"machine": {"devices": 0}}, ["machine.devices is 0: ", "greater than 0"]),
        ({"machine": {"devices": "foo"}}, ["machine.devices is 'foo': ", "valid integer", "or input should be 'auto'"]),
        ({"machine": {"devices": [2]}}, ["machine.devices is [2]: "]),
        ({"machine": {"accelerator": "tpu"}}, ["machine.accelerator is 'tpu': input should be 'auto', 'cpu', 'gpu',"]),
        ({"loss": {"beta_light": -0.1}}, ["loss.beta_light is -0.1", "greater than or equal to 0"]),
        (
            {"optimiser": {"iterations": 6, "warm_up": 6}},
            ["optimiser does not fit together: warm_up is 6, expected less than iterations, which is 6: lower it, or"],
        ),
        ({"loss": {"alpha": float("nan")}}, ["loss.alpha is nan", "finite number"]),
        ({"optimiser": {"iterations": 6, "learning_rate": float("inf")}}, ["optimiser.learning_rate is inf", "finite"]),
    ],
)
def test_a_wrong_key_or_value_is_told_in_one_line_that_names_it(written, changes, parts):
    message = fault(written(MINIMAL | changes))
    assert [part for part in (*parts, "run.yaml") if part not in message] == []


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimiser.batch", ["--set 'optimiser.batch'", "expected key=value"]),
        ("seed.x=1", ["--set 'seed.x=1'", "seed is 4", "expected a group of keys"]),
        ("optimiser.iterations.x=1", ["iterations is 6", "group of keys"]),
        ("optimiser.batch=[1", ["--set 'optimiser.batch=[1'", "not YAML"]),
        ("optimiser.batch=few", ["optimiser.batch is 'few'"]),
        ("rain={kinds: drops, kinds: both}", ["line 1 has the key 'kinds' a second time: keep one of the two"]),
        ("optimizer.batch=2", ["optimizer is unknown, known are: network, data,"]),
    ],
)
def test_a_bad_override_is_told_in_one_line_that_names_its_key(written, override, parts):
    message = fault(written(MINIMAL | {"seed": 4}), override)
    assert [part for part in parts if part not in message] == []


def test_a_key_that_stands_twice_is_told_with_its_line_and_a_merge_is_none(written):
    minimal = yaml.safe_dump(MINIMAL)
    lines = minimal.count("\n")
    told = fault(written(f"{minimal}data:\n  patch: 64\n  patch: 32\n"))
    assert f"line {lines + 3} has the key 'patch' a second time: keep one of the two" in told
    merged = "x: &x {kinds: drops}\nrain: {<<: *x, kinds: both}\n"
    assert read_tree(written(merged))["rain"] == {"kinds": "both"}


@pytest.mark.parametrize(("iterations", "warm_up"), [(1, 0), (60, 6), (1999, 199), (2000, 200), (15000, 200)])
def test_the_warm_up_of_a_short_run_is_a_tenth_of_it(iterations, warm_up):
    for given in (iterations, float(iterations), str(iterations)):
        assert OptimiserConfig.model_validate({"iterations": given}).warm_up == warm_up


@pytest.mark.parametrize(("text", "part"), [("a: [1", "is not YAML"), ("- 1", "holds list"), ("", "holds NoneType")])
def test_a_file_that_holds_no_mapping_is_refused(written, text, part):
    assert part in fault(written(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration '.*nothing\.yaml': expected a YAML file"):
        read_config(tmp_path / "nothing.yaml")


def test_a_learning_rate_that_would_rise_and_a_file_that_is_no_text_are_refused(written, tmp_path):
    changed = MINIMAL | {"optimiser": {"iterations": 6, "learning_rate": 1e-4, "final_learning_rate": 1e-3}}
    with pytest.raises(
        ValueError, match=r"optimiser does not fit together: final_learning_rate is 0\.001, expected at"
    ):
        read_config(written(changed))
    (tmp_path / "latin.yaml").write_bytes("out: größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.yaml is not YAML: .*utf-8"):
        read_config(tmp_path / "latin.yaml")
