"""idle_flags.py: what it calls without effect is, and what is without effect it names."""

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import differences

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp
from idle_flags import IDLE, idle_flags, redraws

# Of the machine, of files, or of what other tests are about: no change of the policy is expected.
ASIDE = {
    *("env_id", "dataset_path", "run_dir", "resume", "device", "num_threads", "compile"),
    *("tensorboard", "checkpoint_freq", "log_freq", "eval_freq", "num_eval_episodes"),
    *("fix_timeouts", "divergence_bound", "literal", "cuda_graphs", "num_updates"),
    *("selection", "top_k", "schedule", "action_units", "d4rl_semantics"),
    *("early_stop", "diffusion_bc", "bf16", "track", "wandb_project", "wandb_entity"),
}
MODES = {  # in each, every flag is changed alone
    "cloning": (gtp, {"eta": 0.0, "num_candidates": 1}),
    "cloning with a choice": (gtp, {"eta": 0.0, "num_candidates": 3, "td_target": "policy"}),
    "Eq. 16": (gtp, {"td_target": "policy", "value": "policy", "consistency_loss": "squared"}),
    "default": (gtp, {"num_candidates": 2, "eta": 1.0, "seed": 2}),
    "gtp_bc": (bc, {"consistency_loss": "squared", "lambda_flow": 0.0, "grad_norm": 1e-3}),
    "diffusion_ql": (dql, {"eta": 0.0, "num_candidates": 1}),
    "consistency_ac": (cac, {"eta": 0.0, "num_candidates": 1}),
}


def other(field, value):
    """Another value of a flag."""
    choices = [choice for choice in get_args(field.type) if choice != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 or 0.5


def outcome(script, args):
    """What some updates come to: networks, energy scores and actions."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    data, holdout, _ = script.load_data(args)
    nets = script.make_networks(args, 3, 2)
    if args.normalize_observations:
        script.standardize(nets, data)
    optimizers = script.make_optimizers(nets, args)
    for update in range(3):
        inputs = script.draw_inputs(update, data, generator, args)
        script.update_networks(nets, optimizers, data, inputs, args)
    act = script.make_act(nets, args, args.seed)
    row = script.evaluate(nets, args, holdout, 2)
    weights = dict(nets.state_dict())
    if args.eval_actor == "online":  # then the averaged one does not act
        weights = {name: w for name, w in weights.items() if not name.startswith("actor_ema.")}
    return {"nets": weights, "row": row, "actions": act(np.ones((9, 3))).tolist()}


@pytest.mark.parametrize("mode", MODES)
def test_the_flags_without_effect_are_those_in_the_table(mode, small):
    """Updates with the changed flag end bit for bit like those without it, or do not."""
    script, changes = MODES[mode]
    tiny = {"hidden_dim": 4, "batch_size": 8, "num_holdout": 9, **changes}
    if script in (dql, cac):
        tiny |= {"ema_start": 0, "ema_every": 1}
    if script is gtp:
        tiny |= {"std_floor": 0.5, "max_weight": 1.2}  # both bind
    args = small(mode, script, **tiny)
    expected = outcome(script, args)
    idle = idle_flags(script.__name__, args)
    without = set()
    for field in fields(script.Args):
        name = field.name
        value = getattr(args, name)
        if name in ASIDE or (name in changes and name not in idle):
            continue
        changed = small(f"{mode}-{name}", script, **tiny | {name: other(field, value)})
        if not differences(expected, outcome(script, changed)):
            without.add(name)
    exact = {name for name in idle.keys() - ASIDE if not redraws(name, args)}
    assert without == exact


@pytest.mark.parametrize("script", [gtp, bc, dql, cac])
def test_a_line_for_each_flag_that_is_not_the_default(script, small, capsys):
    """None for a run whose flags are the task's."""
    script.start(script.default_args("antmaze-umaze-diverse-v0", device="cpu"))
    assert "no effect" not in capsys.readouterr().err
    script.start(small(script=script, num_eval_episodes=3, cuda_graphs=True))
    lines = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert lines == [
        "warning: --num-eval-episodes 3 has no effect with no --env-id",
        "warning: --cuda-graphs has no effect with --no-compile",
    ]


SWITCHES = [(gtp, "literal"), (bc, "literal"), (dql, "diffusion_bc")]


@pytest.mark.parametrize("env_id", ["antmaze-medium-play-v0", "pointmaze-umaze-v0", ""])
@pytest.mark.parametrize(("script", "switch"), SWITCHES)
def test_a_switch_with_its_values_says_nothing(script, switch, env_id, capsys):
    file = "" if env_id else "x.npz"
    script.start(script.default_args(env_id, file, device="cpu", **{switch: True}))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("script", "switch"), SWITCHES)
def test_a_switch_without_the_values_that_it_stands_for_is_refused(script, switch):
    """In a program; the command line brings them."""
    alone = replace(script.default_args("hopper-medium-v2", device="cpu"), **{switch: True})
    flag = switch.replace("_", "-")
    said = rf"--{flag} has no effect with --.*; leave .* default_args\(..., {switch}=True\)"
    with pytest.raises(script.ArgumentError, match=said):
        script.start(alone)


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (["--env-id", "hopper-medium-v2", "--eta", "3"], "--eta 3.0"),
        (
            ["--env-id", "hopper-medium-v2", "--eta", "3", "--num-candidates", "50"],
            "--eta 3.0 --num-candidates 50",
        ),
        (["--dataset-path", "x.npz", "--eta", "3"], "--eta 3.0"),
    ],
)
def test_a_switch_that_lacks_some_of_its_values_names_them(words, others, capsys):
    """On a command line other flags win."""
    dql.start(dql.parse_args([*words, "--diffusion-bc"]))
    assert capsys.readouterr().err == f"warning: --diffusion-bc, but with {others}\n"


def test_a_switch_of_which_other_flags_leave_nothing_is_refused():
    """An own file has no clipping that it could switch off."""
    words = ["--dataset-path", "x.npz", "--diffusion-bc", "--eta", "1", "--num-candidates", "50"]
    said = "--diffusion-bc has no effect with --eta 1.0 --num-candidates 50; leave it out"
    with pytest.raises(dql.ArgumentError, match=said):
        dql.start(dql.parse_args(words))


def test_a_switch_with_the_defaults_of_another_task_names_what_it_lacks(capsys):
    """medium-replay has some of the switch's values at its defaults."""
    args = gtp.default_args("hopper-medium-replay-v2", device="cpu")
    gtp.start(replace(args, env_id="hopper-medium-v2", literal=True))
    line = capsys.readouterr().err
    assert line.startswith("warning: --literal, but with --")
    assert " --consistency-loss pseudo-huber " in line and "--td-target" not in line


LINES = [
    (
        gtp,
        "--huber-c 0.1 --consistency-loss squared",
        "--huber-c 0.1",
        "--consistency-loss squared",
    ),
    (bc, "--lambda-flow 0 --flow-weighting none", "--flow-weighting none", "--lambda-flow 0"),
    (gtp, "--max-q-backup", "--max-q-backup", "--td-target expectile"),
    (
        gtp,
        "--num-value-samples 4",
        "--num-value-samples 4",
        "--value learned, but on the random numbers",
    ),
    (gtp, "--eta 0 --max-weight 7", "--max-weight 7.0", "--eta 0"),
    (gtp, "--eta 0 --critic-norm none", "--critic-norm none", "--eta 0 --num-candidates 1"),
    (bc, "--reward-scale 2", "--reward-scale 2.0", "in gtp_bc.py"),
    (bc, "--divergence-bound 9", "--divergence-bound 9.0", "in gtp_bc.py"),
    (
        dql,
        "--eta 0 --num-candidates 1 --divergence-bound 9",
        "--divergence-bound 9.0",
        "--eta 0 --num-candidates 1",
    ),
    (dql, "--eta 0 --num-candidates 1 --gamma 0.9", "--gamma 0.9", "--eta 0 --num-candidates 1"),
    (cac, "--eta 0 --num-candidates 1 --q-norm", "--q-norm", "--eta 0 --num-candidates 1"),
    (cac, "--schedule once --num-updates 50000", "--schedule once", "--num-updates 50000"),
]


@pytest.mark.parametrize("script, words, flag, because", LINES)
def test_a_flag_that_the_mode_does_not_use_is_said(script, words, flag, because, dataset, capsys):
    args = script.parse_args(["--dataset-path", str(dataset), "--device", "cpu", *words.split()])
    script.start(args)
    (line,) = capsys.readouterr().err.splitlines()
    because = because if because.startswith("in") else f"with {because}"
    assert line == f"warning: {flag} has no effect {because}"


@pytest.mark.parametrize("script", [gtp, bc, dql, cac])
def test_without_a_critic_no_bound_is_reached(script, small, capsys):
    """It is one of Q; 0 means that a loss may be anything, and has an effect."""
    changes = {} if script is bc else {"eta": 0.0, "num_candidates": 1}
    args = small(script=script, divergence_bound=1e-9, num_updates=2, eval_freq=2, **changes)
    assert script.train(args)["status"] == "finished"
    assert "--divergence-bound 1e-09 has no effect" in capsys.readouterr().err
    script.start(replace(args, run_dir="", divergence_bound=0.0))
    assert "divergence" not in capsys.readouterr().err


def test_both_schedules_are_one_until_the_first_period_is_over():
    """N(k) of consistency_ac.py; from 50,001 updates on they differ, and nothing is said."""
    args = cac.default_args(dataset_path="x.npz", device="cpu", num_updates=50_000)
    both = [replace(args, schedule=schedule) for schedule in ("once", "restarting")]
    for more, same in ((0, True), (1, False)):
        once, restarting = (replace(one, num_updates=50_000 + more) for one in both)
        grids = [
            [cac.num_grid_points(update, one) for update in range(0, 50_001, 7)]
            for one in (once, restarting)
        ]
        assert (grids[0] == grids[1]) == same
        assert ("schedule" in idle_flags("consistency_ac", once)) == same


@pytest.mark.parametrize("script", [dql, cac])
@pytest.mark.parametrize(("rank", "said"), [(3, True), (2, False)])
def test_a_rank_that_no_evaluation_has_is_said(script, rank, said, small, capsys):
    """25 updates, evaluated after 10, 20 and 25."""
    results = script.train(small(script=script, num_updates=25, top_k=rank))
    assert len(results["evaluations"]) == 3
    line = (
        f"warning: --top-k {rank}, from 0, is beyond the 3 evaluations: `selected` takes the last"
    )
    assert (line in capsys.readouterr().err) == said


@pytest.mark.parametrize("script", [dql, cac])
def test_evaluations_of_a_whole_task_in_a_program_that_shortens_it_are_said(script, capsys):
    """Its default_args has two million / 40; a frequency of one's own needs no word."""
    args = script.default_args("hopper-medium-expert-v2", device="cpu")
    assert args.eval_freq == 50_000
    script.start(replace(args, num_updates=60, eval_freq=61))
    script.start(replace(args, num_updates=50_000))
    script.start(script.default_args("hopper-medium-expert-v2", device="cpu", num_updates=60))
    assert capsys.readouterr().err == ""
    script.start(replace(args, num_updates=60))
    said = "warning: --eval-freq 50000 is beyond --num-updates 60: the only evaluation is the last"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("script", [dql, cac])
def test_an_averaged_actor_that_never_follows_is_said(script, small, capsys):
    """To the update: one that begins at the last has moved."""
    for start, moved in ((20, False), (19, True)):
        args = small(script=script, ema_start=start, ema_every=1, eval_actor="ema")
        script.start(args)
        lines = [
            f"warning: --ema-every 1 has no effect with --ema-start {start} --num-updates 20",
            f"warning: --eval-actor ema: averages begin at --ema-start {start}, so the actor as it "
            "was initialised acts",
        ]
        assert capsys.readouterr().err.splitlines() == ([] if moved else lines)
        rates = [script.ema_rate(update, args) for update in range(args.num_updates)]
        assert (max(rates) > 0) == moved


def test_an_ablation_is_not_spoken_of(small, monkeypatch, capsys):
    """The function that it replaces may use what the script does not."""
    monkeypatch.setattr(gtp, "VARIANT", "shortcut")
    gtp.start(small(max_q_backup=True))
    gtp.start(small(**gtp.LITERAL | {"sigma_max": 9.0}, literal=True))
    assert capsys.readouterr().err == ""


def test_the_table_knows_the_flags_of_its_scripts():
    assert IDLE.keys() == {script.__name__ for script in (gtp, bc, dql, cac)}
    for script in (gtp, bc, dql, cac):
        known = {field.name for field in fields(script.Args)}
        for values, names in IDLE[script.__name__]:
            assert values.keys() | set(names) <= known


CONTRADICTIONS = [  # of values that are the task's defaults anyway
    (dql, "--diffusion-bc --eta 1", "--diffusion-bc, but with --eta 1.0"),
    (
        dql,
        "--dataset-path x.npz --diffusion-bc --grad-norm 5",
        "--diffusion-bc, but with --grad-norm 5.0",
    ),
    (
        gtp,
        "--env-id hopper-medium-replay-v2 --literal --td-target expectile --critic-norm layer",
        "--literal, but with --td-target expectile --critic-norm layer",
    ),
    (
        bc,
        "--env-id pointmaze-umaze-v0 --literal --ema-every 5",
        "--literal, but with --ema-every 5",
    ),
]


@pytest.mark.parametrize(("script", "words", "said"), CONTRADICTIONS)
def test_a_switch_is_contradicted_on_any_task(script, words, said, capsys):
    """A line that comes on one task alone would let its absence be taken for the letter."""
    script.start(script.parse_args([*words.split(), "--device", "cpu", "--num-updates", "3"]))
    assert f"warning: {said}\n" in capsys.readouterr().err


@pytest.mark.parametrize("script", [dql, cac])
def test_the_rate_of_averages_that_never_begin_is_idle(script):
    args = script.default_args(device="cpu", num_updates=20)
    assert (args.eta, args.num_candidates, args.ema_start) == (0, 1, 1000)
    assert {"tau", "ema_every"} <= idle_flags(script.__name__, args).keys()
    for critic in ({"eta": 1.0}, {"num_candidates": 2}):
        assert "tau" not in idle_flags(script.__name__, replace(args, **critic))
