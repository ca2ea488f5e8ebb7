"""Arguments: a task's defaults, what --help says of them, and that flags win."""

import inspect
import math
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp
from gtp_offline import Args

FAMILY = [gtp, bc, dql, cac]


def resolved(*flags):
    """What the command line gives, complete as it is saved."""
    args = gtp.parse_args([*" ".join(flags).split(), "--device", "cpu", "--run-dir", "x"])
    return gtp.start(args)[0]


def values(args, expected):
    return {key: getattr(args, key) for key in expected}


# ---- defaults --------------------------------------------------------------------------------


# Table 4: eta 5 and learning rate 3e-4 but where a row says otherwise. Gradient norms: medium,
# medium-replay, medium-expert of halfcheetah, hopper, walker2d.
GRADIENT_NORMS = {
    "medium": (9, 9, 1),
    "medium-replay": (2, 4, 4),
    "medium-expert": (7, 5, 5),
}
TABLE = {
    f"{robot}-{level}-v2": dict(grad_norm=norm, eta=5, learning_rate=3e-4, max_q_backup=False)
    for level, norms in GRADIENT_NORMS.items()
    for robot, norm in zip(("halfcheetah", "hopper", "walker2d"), norms, strict=True)
}
TABLE["hopper-medium-v2"]["eta"] = 1
ANTMAZES = {
    "umaze": dict(grad_norm=2, eta=5, learning_rate=3e-4, max_q_backup=False),
    "umaze-diverse": dict(grad_norm=3, eta=1, learning_rate=3e-4, max_q_backup=True),
    "medium-play": dict(grad_norm=2, eta=5, learning_rate=1e-3, max_q_backup=True),
    # not in the paper
    "medium-diverse": dict(grad_norm=1, eta=5, learning_rate=3e-4, max_q_backup=True),
    "large-play": dict(grad_norm=10, eta=5, learning_rate=3e-4, max_q_backup=True),
    "large-diverse": dict(grad_norm=7, eta=5, learning_rate=3e-4, max_q_backup=True),
}


@pytest.mark.parametrize("env_id", TABLE)
def test_locomotion_tasks_have_the_papers_values(env_id):
    expected = TABLE[env_id] | dict(
        num_updates=2_000_000,
        eval_freq=100_000,
        num_eval_episodes=10,
        reward_scale=1,
        reward_shift=0,
        critic_learning_rate=3e-4,
    )
    assert values(resolved("--env-id", env_id), expected) == expected


@pytest.mark.parametrize("version", ["v0", "v2"])
@pytest.mark.parametrize("maze", ANTMAZES)
def test_antmaze_tasks_have_the_papers_values(maze, version):
    expected = ANTMAZES[maze] | dict(
        num_updates=1_000_000,
        eval_freq=50_000,
        num_eval_episodes=100,
        reward_scale=4,
        reward_shift=-0.5,
        critic_learning_rate=3e-4,
    )
    assert values(resolved(f"--env-id antmaze-{maze}-{version}"), expected) == expected


def test_without_task_and_file_the_task_is_a_maze():
    assert resolved("") == resolved("--env-id pointmaze-medium-v0")


MAZES = {"umaze": 4_000, "medium": 6_000, "large": 12_000, "walls": 20_000}


@pytest.mark.parametrize("maze", MAZES)
def test_mazes_are_learned_with_weights(maze):
    expected = dict(
        eta=5,
        learning_rate=3e-4,
        num_updates=MAZES[maze],
        eval_freq=MAZES[maze] // 20,
        num_eval_episodes=100,
        grad_norm=2,
        hidden_dim=128,
        tau=0.01,
        reward_scale=4,
        reward_shift=-0.5,
        normalize_observations=False,
        ema_every=1,
    )
    assert values(resolved(f"--env-id pointmaze-{maze}-v0"), expected) == expected


def test_equal_goals_are_cloned():
    expected = dict(
        env_id="multigoal-v0",
        eta=0,
        learning_rate=1e-3,
        num_updates=4_000,
        eval_freq=200,
        num_eval_episodes=1_000,
        grad_norm=0,
        normalize_observations=False,
        ema_every=1,
    )
    assert values(resolved("--env-id multigoal-v0"), expected) == expected


def test_unequal_goals_are_learned_with_weights():
    expected = dict(eta=5, num_updates=8_000, num_eval_episodes=1_000)
    assert values(resolved("--env-id multigoal-unequal-v0"), expected) == expected


def test_a_file_alone_has_no_task():
    expected = dict(
        env_id="",
        eta=5,
        learning_rate=3e-4,
        grad_norm=0,
        num_updates=100_000,
        reward_scale=1,
        reward_shift=0,
    )
    assert values(resolved("--dataset-path x.npz"), expected) == expected


DEFAULT = dict(
    consistency_loss="pseudo-huber",
    huber_c=0.03,
    consistency_weighting="inverse-gap",
    flow_weighting="edm",
    lambda_flow=10,
    t_sampling="lognormal",
    sigma_max=5,
    sigma_min=0.002,
    preconditioning="edm",
    strict_s=False,
    u_sampling="adjacent",
    sampler_end="sigma-min",
    truncate_advantage=False,
    std_floor=0.05,
    max_weight=20,
    weight_normalization="mean",
    td_target="expectile",
    expectile=0.9,
    value="learned",
    weight_critic="target",
    critic_norm="layer",
    normalize_observations=True,
    ema_every=5,
    eval_actor="ema",
    num_candidates=1,
    num_steps=5,
    num_holdout=2000,
    gamma=0.99,
    tau=0.005,
    batch_size=256,
    hidden_dim=256,
    num_threads=1,
)
LITERAL = DEFAULT | dict(
    consistency_loss="squared",
    consistency_weighting="none",
    flow_weighting="none",
    lambda_flow=1,
    t_sampling="uniform",
    sigma_max=80,
    preconditioning="none",
    strict_s=True,
    sampler_end="zero",
    truncate_advantage=True,
    std_floor=0,
    max_weight=math.inf,
    weight_normalization="none",
    td_target="policy",
    expectile=0.5,
    weight_critic="online",
    critic_norm="none",
    normalize_observations=False,
    ema_every=1,
    eval_actor="online",
    num_holdout=0,
)


def test_the_defaults_are_those_of_the_design():
    assert values(resolved("--dataset-path x.npz"), DEFAULT) == DEFAULT


EQ_16 = {"td_target": "policy", "expectile": 0.5, "weight_critic": "online", "critic_norm": "none"}


@pytest.mark.parametrize("robot", ["hopper", "walker2d", "halfcheetah"])
@pytest.mark.parametrize("data", ["medium", "medium-replay", "medium-expert"])
def test_where_many_policies_made_the_data_the_critic_is_that_of_eq_16(robot, data):
    expected = EQ_16 if data == "medium-replay" else {name: DEFAULT[name] for name in EQ_16}
    args = gtp.default_args(f"{robot}-{data}-v2")
    assert {name: getattr(args, name) for name in EQ_16} == expected


@pytest.mark.parametrize(
    "where",
    ["--dataset-path x.npz", *(f"--env-id hopper-{d}-v2" for d in ("medium", "medium-replay"))],
)
def test_literal_is_the_papers_letter(where):
    assert values(resolved(where, "--literal"), LITERAL) == LITERAL


def test_the_command_line_wins_over_the_table():
    flags = "--eta 3 --learning-rate 1e-4 --grad-norm 0.5 --num-updates 7 --num-eval-episodes 2"
    args = resolved("--env-id antmaze-umaze-diverse-v0", flags, "--reward-scale 1 --reward-shift 0")
    assert (args.eta, args.learning_rate, args.grad_norm, args.num_updates) == (3, 1e-4, 0.5, 7)
    assert (args.num_eval_episodes, args.reward_scale, args.reward_shift) == (2, 1, 0)
    assert args.max_q_backup is True


def test_the_command_line_wins_over_literal_even_with_a_default():
    """--sigma-max 5 is the default without --literal: given, it stays 5."""
    flags = "--sigma-max 5 --max-weight 100 --num-holdout 100 --consistency-loss pseudo-huber"
    args = resolved("--env-id hopper-medium-v2 --literal", flags, "--eta 0")
    assert (args.sigma_max, args.max_weight, args.num_holdout) == (5, 100, 100)
    assert args.consistency_loss == "pseudo-huber" and args.eta == 0 and args.lambda_flow == 1


def test_flags_win_also_where_they_repeat_a_default():
    """Every flag at once, with the value of Args, for a task that has others."""
    words = ["--env-id", "antmaze-medium-play-v0", "--literal"]
    for field in fields(Args):
        if field.name in ("env_id", "literal"):
            continue
        flag = field.name.replace("_", "-")
        switch = [f"--{flag}" if field.default else f"--no-{flag}"]
        words += switch if field.type is bool else [f"--{flag}", str(field.default)]
    expected = replace(Args(), env_id="antmaze-medium-play-v0", literal=True)
    assert gtp.parse_args(words) == expected


def test_train_runs_exactly_the_given_arguments(tmp_path):
    """No table is read: hopper-medium's eta is 1, that of Args is 5."""
    given = Args(env_id="hopper-medium-v2", device="cpu", run_dir=str(tmp_path), num_updates=40)
    ran, state = gtp.start(given)
    assert ran == replace(given, eval_freq=2) and state is None
    assert ran.eta == 5 and gtp.default_args("hopper-medium-v2").eta == 1


# ---- the command line ------------------------------------------------------------------------


def defaults_in_help(script, words, monkeypatch, capsys):
    """{flag: the default that --help prints for it}."""
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        script.parse_args([*words, "--help"])
    assert ended.value.code == 0
    shown = {}
    for line in capsys.readouterr().out.splitlines():
        text = line.strip("│ ")
        flag = re.match(r"--([a-z0-9-]+)", text)
        if flag:
            name = flag[1].replace("-", "_")
        default = re.search(r"\(default: (.*)\)$", text)
        if default:
            shown[name] = default[1]
    return shown


TASKS = ("", "hopper-medium-v2", "antmaze-umaze-diverse-v0", "multigoal-unequal-v0")


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("script", FAMILY)
def test_help_shows_the_defaults_of_the_task(script, env_id, monkeypatch, capsys):
    words = ["--env-id", env_id] if env_id else []
    shown = defaults_in_help(script, words, monkeypatch, capsys)
    values = asdict(script.default_args(env_id))
    assert shown == {name: str(value) or "''" for name, value in values.items()}


def test_help_shows_the_papers_letter_and_what_else_is_given(monkeypatch, capsys):
    words = ["--env-id", "hopper-medium-v2", "--literal", "--num-updates", "7"]
    shown = defaults_in_help(gtp, words, monkeypatch, capsys)
    assert (shown["sigma_max"], shown["max_weight"], shown["literal"]) == ("80.0", "inf", "True")
    assert (shown["eta"], shown["num_updates"]) == ("1.0", "7")


def test_help_shows_the_arguments_of_a_run_to_resume(small, monkeypatch, capsys):
    gtp.train(small(num_updates=1, tau=0.125))
    capsys.readouterr()
    shown = defaults_in_help(gtp, ["--resume", small().run_dir], monkeypatch, capsys)
    assert (shown["tau"], shown["num_updates"]) == ("0.125", "1")


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("words", ["--compile True", "--tensorboard=False", "--max-q-backup false"])
def test_a_switch_with_a_value_is_refused_with_the_remedy(script, words, monkeypatch, capsys):
    if script is bc:
        words = words.replace("max-q-backup", "literal")
    monkeypatch.setattr("sys.argv", ["x.py", "--dataset-path", "x.npz", *words.split()])
    assert script.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "--no-x" in line


@pytest.mark.parametrize("script", FAMILY)
def test_every_flag_has_a_help_text(script):
    """The comment at the end of its line or on the line before, which tyro shows."""
    lines = [line.strip() for line in inspect.getsource(script.Args).splitlines()]
    for name in script.Args.__dataclass_fields__:
        (number,) = (n for n, line in enumerate(lines) if line.startswith(f"{name}: "))
        before = lines[number - 1].startswith("# ") and "---" not in lines[number - 1]
        assert before or "  # " in lines[number], name


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize(
    "words", [["--resume", ""], ["--env-id="], ["--seed", "1", "--run_dir", ""]]
)
def test_an_empty_value_is_said(script, words, capsys):
    """As of a shell's variable that is not set, with which the default job begins."""
    script.parse_args(words)
    flag = next(word for word in reversed(words) if word).rstrip("=")
    assert capsys.readouterr().err == f"warning: {flag} is empty, as if it were not given\n"


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("run_dir", Path("x"), "give str(...)"),
        ("seed", np.int64(3), "give int(...)"),
        ("num_updates", 20.0, "give int(...)"),
        ("tau", np.float32(0.1), "give float(...)"),
        ("compile", 1, "give bool(...)"),
    ],
)
def test_a_value_of_another_type_is_refused_in_a_program(script, name, value, said):
    """Before training, which would end in a TypeError, or results.json, which knows no float32."""
    args = script.default_args(device="cpu")
    with pytest.raises(script.ArgumentError, match=re.escape(f"{name} is {value!r}; {said}")):
        script.check_args(replace(args, **{name: value}))
    script.check_args(replace(args, tau=np.float64(0.1), learning_rate=1))
