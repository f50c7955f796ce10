"""Command lines as values: what is parsed, what is refused, and the help."""

import importlib
import re

import pytest
from absl import flags as absl_flags

from pipelines import __main__ as console
from pipelines import flags, sweep
from pipelines import run as run_pipeline
from pipelines.shared_flags import some
from robust_tf import settings
from robust_tf.errors import InvalidArgument
from robust_tf.paper.experiments import ABLATION, GRID, IMPACT
from robust_tf.runs.declaration import Run
from robust_tf.studies.experiments import STANDARDIZATION

GROUPS = run_pipeline._groups()
ALL = {one.name: one for group in GROUPS.values() for one in group}


def parse(*arguments, groups=GROUPS) -> flags.Values:
    return flags.parse(["program", *arguments], groups)


def test_values_have_their_types():
    values = parse(
        "--strategy=incremental", "--perturb=noise", "--level=0.03", "--epochs", "7",
        "--learning_rate=1e-3", "--head_units=16,8", "--seeds=1,2,1", "--eval=hot, blur",
        "--fresh", "--noshuffle", "--drop_remainder=false",
    )  # fmt: skip
    assert values.given == {
        "strategy": "incremental", "perturb": "noise", "level": "0.03", "epochs": 7,
        "learning_rate": 0.001, "head_units": (16, 8), "seeds": (1, 2, 1), "eval": ("hot", "blur"),
        "fresh": True, "shuffle": False, "drop_remainder": False,
    }  # fmt: skip
    assert type(values.epochs) is int and type(values.learning_rate) is float
    assert values.others == []


def test_a_flag_that_is_not_there_has_its_default_and_is_not_given():
    values = parse("--seed=3")
    assert values.given == {"seed": 3}
    assert (values.trials, values.dataset, values.output_dir) == (25, "mnist", "results")
    assert values.epochs is None  # the network's recipe has it
    assert values.of(("seed", "trials")) == {"seed": 3}
    with pytest.raises(AttributeError):
        values.no_such_flag  # noqa: B018


def test_the_last_of_two_counts_and_other_arguments_are_kept():
    values = parse("--seed=3", "word", "--seed=4", "--", "--seed=5")
    assert values.seed == 4
    assert values.others == ["word", "--seed=5"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--no_such_flag=1", "no_such_flag"),
        ("--epoch=1", "epoch"),  # no flag is known by a part of its name
        ("--epochs", "epochs"),
        ("--fresh=perhaps", "--fresh=perhaps: expected true or false"),
        ("--noepochs", "noepochs"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_an_error_of_one_line(argument, message):
    with pytest.raises(flags.FlagError) as caught:
        parse(argument)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=few", "epochs=few: expected a whole number from 1 on"),
        ("--epochs=1.5", "epochs=1.5: expected a whole number from 1 on"),
        ("--epochs=", "epochs=: expected a whole number from 1 on"),
        ("--epochs=0", "epochs=0: expected a whole number from 1 on"),
        ("--learning_rate=nan", "learning_rate=nan: expected a number above 0"),
        ("--beta_1=1", "beta_1=1.0: expected a number from 0 to below 1"),
        ("--strategy=Natural", "strategy=Natural: expected one of natural, constant, incremental"),
        ("--model=vgg", "model=vgg: expected one of mnist_cnn"),
        ("--optimizer=lion", "optimizer=lion: expected one of adam, adamw, sgd"),
        ("--augment=turn", "augment=turn: expected none, or some of flip, shift"),
        ("--head_units=8,x", "head_units=8,x: expected whole numbers from 1 on, separated by"),
        ("--seeds=", "seeds=: expected whole numbers from 0 on"),
        ("--seed=-1", "seed=-1: expected a whole number from 0 on"),
        ("--data_source=web", "data_source=web: expected one of auto, tfds, sample"),
        ("--threads=0", "threads=0: expected a whole number from 1 to 1024"),
        ("--test_examples=0", "test_examples=0: expected a whole number from 1 on"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(argument, message):
    with pytest.raises(InvalidArgument) as caught:
        parse(argument)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("argument", ["--help", "-h", "-help", "--helpshort", "--helpfull"])
def test_help_is_asked_for_whatever_else_is_wrong(argument):
    with pytest.raises(flags.HelpAsked):
        parse("--no_such_flag", argument)


def test_no_state_outlives_a_call():
    before = set(absl_flags.FLAGS)
    first = parse("--epochs=3")
    assert parse("--seed=1").given == {"seed": 1}
    assert first.given == {"epochs": 3}
    assert set(absl_flags.FLAGS) == before
    ours = set(ALL) & before
    assert not ours, f"{ours} are flags of the whole process"


def test_help_shows_groups_with_the_most_used_flags_first(in_process):
    done = in_process("--help")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == run_pipeline.__doc__.splitlines()[0]
    titles = [line.rstrip(":") for line in lines if re.fullmatch(r"[A-Z].*:", line)]
    wanted = ["What is trained", "Perturbation", "Data", "Recipe", "Tests", "Outputs"]
    assert [title for title in titles if title in wanted] == wanted == list(GROUPS)
    shown = [re.match(r"  --(?:\[no\])?(\w+):", line) for line in lines]
    names = [match[1] for match in shown if match]
    assert names == list(ALL)
    assert names[:3] == ["strategy", "model", "seed"]
    after = {title: names[names.index(group[0].name)] for title, group in GROUPS.items()}
    assert after["Perturbation"] == "perturb" and after["Data"] == "dataset"
    assert after["Recipe"] == "epochs" and after["Tests"] == "eval"


def test_help_says_choices_and_defaults(in_process):
    text = " ".join(in_process("--help").stdout.split())
    assert "--strategy: <natural|constant|incremental|transfer>" in text
    assert "By default constant with --perturb, or else natural." in text
    assert "--[no]fresh:" in text and "--trials: " in text
    assert "By default 25." in text
    for part in ("0.05 (mnist_cnn)", "0.0005 (cifar10_cnn)", "0.9 (preset published)"):
        assert part in text


@pytest.mark.parametrize("name", ALL)
def test_every_flag_of_a_run_is_documented(name):
    text = ALL[name].setting.help
    assert text[0].isupper() or text.split()[0].strip(":,") in (
        "none",
        "natural",
        "constant",
        "sgd",
    )
    assert text.endswith((".", ")"))
    assert len(text) > 15


def test_every_setting_of_a_run_is_one_flag_in_one_group():
    names = [one.name for group in GROUPS.values() for one in group]
    assert len(names) == len(set(names))
    assert set(settings.declared(Run)) <= set(names)


def sample(one) -> str:
    """A text that the flag of a setting allows."""
    setting = one.setting
    if setting.type is bool:
        return f"--{one.name}"
    texts = {"levels": "1", "augment": "flip", "depth": "10"}
    texts |= {"value_range": "0,255", "budget": "1h"}
    text = (
        setting.choices[0] if setting.choices else {int: "1", float: "0.5"}.get(setting.type, "8")
    )
    return f"--{one.name}={texts.get(one.name, text)}"


@pytest.mark.parametrize(
    "experiment", [IMPACT, ABLATION, GRID, STANDARDIZATION], ids=lambda e: e.name
)
def test_an_experiment_has_every_flag_of_a_run_but_those_that_it_decides(experiment):
    groups = sweep._groups(experiment)
    declared = {one.name: one for group in groups.values() for one in group}
    values = parse(*map(sample, declared.values()), groups=groups)
    assert set(values.given) == set(declared)
    of_runs = set(settings.declared(Run)) - experiment.decides - {"seed", "pretrained"}
    assert of_runs <= set(declared)
    assert not (experiment.decides | {"pretrained"}) & set(declared)
    assert set(experiment.selects) <= set(declared)
    for name in experiment.decides:
        with pytest.raises(flags.FlagError, match=name):
            parse(f"--{name}=1", groups=groups)


@pytest.mark.parametrize(
    ("pipeline", "line", "message"),
    [
        ("grid", "--strategies=natural", "--strategies=natural: expected some of constant, incr"),
        ("grid", "--levels=one", "--levels=one: expected numbers, separated by commas"),
        ("grid", "--levels=11", "--levels=11: expected some of "),
        ("grid", "--perturbs=rain", "--perturbs=rain: expected some of stuck, dead, hot, noise"),
        ("grid", "--datasets=", "--datasets=: expected at least one"),
        ("grid", "--seeds=0,-1", "--seeds=0,-1: expected whole numbers from 0 on"),
        ("grid", "--num_cpus=2", "--num_cpus=2.0: expected no value with executor=local"),
        ("impact", "--levels=6", "--levels=6: expected some of 0.001"),
        ("impact", "--ramp=cosine", "Unknown command line flag 'ramp'"),
        ("impact", "--strategy=constant", "strategy"),
        ("grid", "--depth=10", "--depth=10: expected no value with model=mnist_cnn"),
        ("grid", "--threads=99999999999", "expected a whole number from 1 to 1024"),
        ("grid", "--output_dir=", "--output_dir=: expected a directory or a URL"),
        ("grid", "--datasets=digits", "--data_source=sample: expected tfds or auto"),
        ("ablation", "--dropout=0.1", "dropout"),
        ("ablation", "--perturbs=hot", "perturbs"),
        ("standardization", "--standardize=none", "standardize"),
    ],
)
def test_bad_flags_of_an_experiment_give_one_line(in_process, tmp_path, pipeline, line, message):
    source = ("--datasets=mnist",) if "datasets" not in line else ()
    done = in_process(
        *source, line, "--data_source=sample", "--dry_run", pipeline=f"pipelines.{pipeline}"
    )
    (said,) = done.stderr.strip().splitlines()
    assert done.returncode == 2 and said.startswith("error: ") and message in said
    assert done.stdout == "" and list(tmp_path.rglob("*.csv")) == []


def test_defaults_can_be_others_on_another_command_line():
    (dataset,) = some(run_pipeline.Dataset, ["dataset"], dataset="cifar10")
    assert parse(groups={"Data": [dataset]}).dataset == "cifar10"
    text = " ".join(flags.usage("", {"Data": [dataset]}, {}).split())
    assert text.endswith("By default cifar10.")


@pytest.fixture
def robust_tf(monkeypatch, capsys):
    """Runs the console script in this process; gives its exit code and what it prints."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["robust-tf", *arguments])
        code = 0
        try:
            console.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_the_console_script_lists_its_commands(robust_tf):
    for arguments in ([], ["--help"], ["-h"]):
        code, out, err = robust_tf(*arguments)
        assert (code, err) == (0, "")
        assert all(f"  {name} " in out for name in console.COMMANDS)


@pytest.mark.parametrize("name", console.COMMANDS)
def test_each_command_has_help_of_its_own(robust_tf, name):
    code, out, err = robust_tf(name, "--help")
    module = importlib.import_module(f"pipelines.{name.replace('-', '_')}")
    assert (code, err) == (0, "")
    assert out.startswith(module.__doc__.splitlines()[0])
    assert "  --output_dir:" in out or name == "serve"


def test_an_unknown_command_is_named_with_those_that_there_are(robust_tf):
    code, out, err = robust_tf("rum", "--perturb=hot")
    assert (code, out) == (2, "")
    assert err.startswith("error: rum: expected one of run, grid, ") and err.count("\n") == 1


def test_a_command_gets_the_arguments_behind_it(robust_tf):
    code, out, err = robust_tf("run", "--epochs=0")
    assert (code, out) == (2, "")
    assert err == "error: --epochs=0: expected a whole number from 1 on\n"
