"""How the updates are wired: which network, at which observations, with which numbers.

The single functions are tested by number elsewhere. Here one update is made of small networks whose
averages differ from their sources, by plain gradient descent in float64, and what it must have done
is computed again from the networks before it. Then what surrounds an update: data, task tables.
"""

import math
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_dataset

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc
import gtp_offline as gtp
import offline_tasks

FAMILY = [gtp, gtp_bc, dql, cac]
GTP = [gtp, gtp_bc]
CRITICS = [gtp, dql, cac]
SIBLINGS = [dql, cac]
STEP = 0.1  # of the gradient descent
BOUND = 0.05  # of the gradients' norms, below all that come up
LATE = 25_000  # an update where Consistency-AC's grid has 107 points


def arguments(script, **changes):
    args = script.default_args(dataset_path="x.npz", device="cpu", num_updates=50_000)
    small = {"hidden_dim": 8, "batch_size": 6, "num_steps": 3, "grad_norm": BOUND, "tau": 0.25}
    small["ema_every"] = 1
    return replace(args, **small | changes)


def clear_caches():
    """Schedules are kept for equal arguments, in the type of their first call."""
    for script in FAMILY:
        for name in ("time_grid", "sampling_times", "vp_schedule"):
            if hasattr(script, name):
                getattr(script, name).cache_clear()


def make_data(count=20):
    """Tensors as load_data gives them; 14 of the 20 transitions, in disorder, are for training."""
    generator = torch.Generator().manual_seed(0)
    return {
        "observations": torch.randn(count, 3, generator=generator),
        "next_observations": torch.randn(count, 3, generator=generator),
        "actions": torch.rand(count, 2, generator=generator) * 2 - 1,
        "rewards": torch.randn(count, generator=generator),
        "terminals": (torch.arange(count) % 3 == 0).to(torch.get_default_dtype()),
        "rows": torch.randperm(count, generator=generator)[:14],
    }


def disturb(nets, data):
    """Averages differ from their sources, actions depend on the noise, and now one and now the
    other Q is the smaller; V is in their midst."""
    obs, actions = data["observations"], data["actions"]
    deviations = {"actor": 0.0, "actor_ema": 0.1, "critic": 0.6, "critic_target": 0.6, "value": 0.3}
    with torch.no_grad():
        for name, net in nets.items():
            for parameter in net.parameters():
                parameter.add_(deviations[name] * torch.randn_like(parameter))
            if name.startswith("critic"):
                *_, bias = net.parameters()
                bias -= net(obs, actions).mean(1).view_as(bias)
        if "value" in nets:
            *_, bias = nets["value"].parameters()
            bias -= (nets["value"](obs).flatten() - nets["critic"](obs, actions).amin(0)).mean()


@pytest.fixture
def update():
    """update(script, **changes): one update of a small agent, the networks before and after it."""
    torch.set_default_dtype(torch.float64)
    clear_caches()

    def make(script, **changes):
        args = arguments(script, **changes)
        torch.manual_seed(0)
        nets = script.make_networks(args, 3, 2)
        data = make_data()
        disturb(nets, data)
        optimizers = {
            name: torch.optim.SGD(nets[name].parameters(), STEP)
            for name in script.make_optimizers(nets, args)
        }
        before = deepcopy(nets)
        inputs = script.draw_inputs(LATE, data, torch.Generator().manual_seed(1), args)
        metrics = script.update_networks(nets, optimizers, data, inputs, args)
        rows = data["rows"][inputs["rows"]]
        batch = {key: tensor[rows] for key, tensor in data.items() if key != "rows"}
        return SimpleNamespace(
            script=script,
            args=args,
            before=before,
            nets=nets,
            inputs=inputs,
            metrics=metrics,
            batch=SimpleNamespace(**batch),
        )

    yield make
    torch.set_default_dtype(torch.float32)
    clear_caches()


def sample(run, actor, obs, noise):
    """Actions of the script's sampler with the steps of the run."""
    if run.script is gtp:
        return gtp.sample_actions(actor, obs, noise, gtp.sampling_times(3, run.args))
    if run.script is dql:
        return dql.sample_actions(actor, obs, noise, dql.vp_schedule(3, "cpu"))
    times = cac.sampling_times(3, run.args)
    return cac.sample_actions(actor, obs, noise, times, run.args.sigma_min)


def noise_of(run, first, last=None):
    """The sampler's noise of these samples of a state; the siblings draw it for every step."""
    normal = run.inputs["normal"]
    return normal[first:last] if run.script is gtp else normal[:, first:last]


def assert_step(run, name, loss):
    """One step of gradient descent on the loss, the gradient shortened to BOUND; returns its norm.

    The loss must be one of run.before[name]."""
    parameters = list(run.before[name].parameters())
    gradients = torch.autograd.grad(loss, parameters)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    assert norm > 2 * BOUND
    after = run.nets[name].parameters()
    for old, gradient, new in zip(parameters, gradients, after, strict=True):
        torch.testing.assert_close(new - old, -STEP * BOUND / norm * gradient, rtol=1e-4, atol=1e-9)
    return norm


def assert_average(run, average, source, rate):
    """The average went a fraction `rate` of the way from where it was to the new source."""
    triples = zip(
        run.before[average].parameters(),
        run.nets[source].parameters(),
        run.nets[average].parameters(),
        strict=True,
    )
    for before, goal, after in triples:
        torch.testing.assert_close(after, (1 - rate) * before + rate * goal)


# ---- the critic's part of an update ----------------------------------------------------------


@pytest.mark.parametrize("script", CRITICS)
@pytest.mark.parametrize("max_q_backup", [False, True])
@pytest.mark.parametrize("choosing", [False, True])
def test_the_critic_steps_towards_the_td_target(script, max_q_backup, choosing, update):
    """Eq. 16: critic_target at next_observations, at one action of actor_ema or the best of ten for
    each critic, the smaller of the two. With eta = 0 and a choosing critic alike."""
    changes = {"eta": 0.0, "num_candidates": 4} if choosing else {"eta": 1.0}
    if script is gtp:
        changes["td_target"] = "policy"
    run = update(script, max_q_backup=max_q_backup, gamma=0.9, **changes)
    obs, actions, next_obs = run.batch.observations, run.batch.actions, run.batch.next_observations
    count = 10 if max_q_backup else 1
    noise = noise_of(run, 1, 1 + count)
    with torch.no_grad():
        next_actions = sample(run, run.before["actor_ema"], next_obs, noise)
        next_q = run.before["critic_target"](next_obs, next_actions)
    assert next_actions.shape == (count, 6, 2) and 0 < run.batch.terminals.sum() < 6
    smaller = torch.minimum(next_q[0].amax(0), next_q[1].amax(0))
    target = run.batch.rewards + 0.9 * (1 - run.batch.terminals) * smaller
    q = run.before["critic"](obs, actions)
    loss = (q[0] - target).square().mean() + (q[1] - target).square().mean()
    norm = assert_step(run, "critic", loss)
    assert run.metrics["critic"].item() == pytest.approx(loss.item())
    assert run.metrics["critic_grad_norm"].item() == pytest.approx(norm)
    assert run.metrics["q_mean"].item() == pytest.approx(q.mean().item())
    assert run.metrics["target_q"].item() == pytest.approx(target.mean().item())


@pytest.mark.parametrize("max_q_backup", [False, True])
@pytest.mark.parametrize("choosing", [False, True])
def test_the_critic_steps_towards_the_expectile_target(max_q_backup, choosing, update):
    """The default: r + gamma (1 - terminal) V(s'), of V before its step, whatever the actions and
    whatever --max-q-backup; with eta = 0 and a choosing critic alike."""
    changes = {"eta": 0.0, "num_candidates": 4} if choosing else {"eta": 1.0}
    run = update(gtp, max_q_backup=max_q_backup, gamma=0.9, **changes)
    assert run.args.td_target == "expectile" and 0 < run.batch.terminals.sum() < 6
    assert len(run.inputs["normal"]) == 2  # the loss's and one for V: no next action is drawn
    value = run.before["value"](run.batch.next_observations).flatten().detach()
    target = run.batch.rewards + 0.9 * (1 - run.batch.terminals) * value
    q = run.before["critic"](run.batch.observations, run.batch.actions)
    loss = (q[0] - target).square().mean() + (q[1] - target).square().mean()
    norm = assert_step(run, "critic", loss)
    assert run.metrics["critic"].item() == pytest.approx(loss.item())
    assert run.metrics["critic_grad_norm"].item() == pytest.approx(norm)
    assert run.metrics["q_mean"].item() == pytest.approx(q.mean().item())
    assert run.metrics["q_max"].item() == pytest.approx(q.max().item())
    assert run.metrics["target_q"].item() == pytest.approx(target.mean().item())


@pytest.mark.parametrize(("target_steps", "steps"), [(0, 3), (1, 1), (2, 2), (7, 7)])
def test_the_td_targets_actions_take_their_own_steps(target_steps, steps, update):
    """--target-steps, and --num-steps without it; those of --value policy stay at --num-steps."""
    run = update(
        gtp, eta=1.0, td_target="policy", value="policy", target_steps=target_steps, gamma=0.9
    )
    obs, next_obs = run.batch.observations, run.batch.next_observations
    times = gtp.sampling_times(steps, run.args)
    assert len(times) == steps + 1
    with torch.no_grad():
        actor_ema = run.before["actor_ema"]
        next_actions = gtp.sample_actions(actor_ema, next_obs, noise_of(run, 1, 2), times)
        next_q = run.before["critic_target"](next_obs, next_actions).amin(0)[0]
    target = run.batch.rewards + 0.9 * (1 - run.batch.terminals) * next_q
    loss = (run.before["critic"](obs, run.batch.actions) - target).square().mean(1).sum()
    assert_step(run, "critic", loss)
    assert len(run.inputs["times"]) == 4


@pytest.mark.parametrize("script", CRITICS)
def test_the_target_critic_follows_the_critic_at_the_rate_tau(script, update):
    assert_average(update(script, eta=1.0), "critic_target", "critic", 0.25)


# ---- the weights of GTP's actor (Eq. 14) -----------------------------------------------------


def record(monkeypatch, script, name):
    """The calls of a function of a script: (arguments, result)."""
    calls, original = [], getattr(script, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append((args, result))
        return result

    monkeypatch.setattr(script, name, wrapped)
    return calls


def chosen_q(run, weight_critic, actions):
    """The smaller Q at the batch's observations: of the critic after its step, or of
    critic_target, which has not moved yet."""
    critic = run.nets["critic"] if weight_critic == "online" else run.before["critic_target"]
    return critic(run.batch.observations, actions).amin(0).detach()


@pytest.mark.parametrize("weight_critic", ["online", "target"])
def test_the_advantage_is_the_smaller_q_less_the_learned_value(weight_critic, update, monkeypatch):
    """Q of the chosen critic and V before its step, both at the batch's observations."""
    calls = record(monkeypatch, gtp, "advantage_weights")
    run = update(gtp, weight_critic=weight_critic, eta=3.0, max_weight=7.0, std_floor=0.25)
    q = chosen_q(run, weight_critic, run.batch.actions)
    value = run.before["value"](run.batch.observations).flatten()
    (((advantage, *given), weights),) = calls
    torch.testing.assert_close(advantage, q - value.detach())
    assert given == [3.0, 7.0, "mean", False, 0.25 * q.abs().mean()]
    assert not weights.requires_grad
    assert run.metrics["advantage_weight_max"] == weights.max()


@pytest.mark.parametrize("normalization", ["mean", "none"])
@pytest.mark.parametrize("truncate", [False, True])
def test_the_flags_say_how_an_update_weighs(normalization, truncate, update, monkeypatch):
    """They reach advantage_weights; (sum w)^2 / (B sum w^2) of its weights is reported."""
    calls = record(monkeypatch, gtp, "advantage_weights")
    run = update(gtp, weight_normalization=normalization, truncate_advantage=truncate)
    (((_, *given, _), weights),) = calls
    assert given == [5.0, 20.0, normalization, truncate]
    size = weights.sum().item() ** 2 / (6 * weights.square().sum().item())
    assert run.metrics["effective_sample_size"].item() == pytest.approx(size)
    assert 1 / 6 <= size < 0.99


@pytest.mark.parametrize("weight_critic", ["online", "target"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"expectile": 0.7}, {"expectile": 0.5}, {"eta": 0.0, "num_candidates": 4}],
)
def test_the_learned_value_steps_towards_the_smaller_q(weight_critic, changes, update):
    """Errors of V below and above Q, at the data's observations and actions, count .9 to .1 by
    default and alike for an expectile of .5, the squared error; also for eta 0."""
    run = update(gtp, weight_critic=weight_critic, **changes)
    expectile = changes.get("expectile", 0.9)
    q = chosen_q(run, weight_critic, run.batch.actions)
    gap = q - run.before["value"](run.batch.observations).flatten()
    below, above = gap.clamp(min=0), gap.clamp(max=0)
    assert (gap > 0).any() and (gap < 0).any()
    loss = 2 * (expectile * below.square() + (1 - expectile) * above.square()).mean()
    if expectile == 0.5:
        torch.testing.assert_close(loss, gap.square().mean())
    assert_step(run, "value", loss)
    assert run.metrics["value"].item() == pytest.approx(loss.item())


def test_an_update_goes_from_the_critic_to_value_and_actor_to_the_averages(update, monkeypatch):
    """Algorithm 1: the critic's step (line 4), then the weights (5), then those of V and the actor
    together (8), then the averages (9)."""
    order = []

    def watch(name, say):
        original = getattr(gtp, name)

        def watched(*args):
            order.append((name, say(*args)))
            return original(*args)

        monkeypatch.setattr(gtp, name, watched)

    watch("gradient_steps", lambda nets, optimizers, losses, bound: [*losses])
    watch("advantage_weights", lambda *args: None)
    watch("polyak", lambda target, source, rate: target)
    nets = update(gtp).nets
    assert order == [
        ("gradient_steps", ["critic"]),
        ("advantage_weights", None),
        ("gradient_steps", ["value", "actor"]),
        ("polyak", nets["actor_ema"]),
        ("polyak", nets["critic_target"]),
    ]


@pytest.mark.parametrize("weight_critic", ["online", "target"])
@pytest.mark.parametrize("max_q_backup", [False, True])
def test_the_value_of_the_policy_is_the_mean_q_of_its_actions(
    weight_critic, max_q_backup, update, monkeypatch
):
    """--value policy: three actions of actor_ema for each state, with noise of their own, and the
    same critic as for the data's actions."""
    calls = record(monkeypatch, gtp, "advantage_weights")
    run = update(
        gtp,
        value="policy",
        td_target="policy",
        num_value_samples=3,
        weight_critic=weight_critic,
        max_q_backup=max_q_backup,
    )
    noise = noise_of(run, 11, 14) if max_q_backup else noise_of(run, 2, 5)
    actions = sample(run, run.before["actor_ema"], run.batch.observations, noise)
    assert actions.shape == (3, 6, 2) and len(run.inputs["normal"]) == (14 if max_q_backup else 5)
    value = chosen_q(run, weight_critic, actions).mean(0)
    (((advantage, *_), weights),) = calls
    expected = chosen_q(run, weight_critic, run.batch.actions) - value
    torch.testing.assert_close(advantage, expected)
    assert "value" not in run.nets and not weights.requires_grad


# ---- the update as it was, and as the paper has it -------------------------------------------

AS_IT_WAS = gtp.OLDER | {"max_weight": 100.0, "weight_critic": "online"}


@pytest.mark.parametrize("changes", [gtp.LITERAL, AS_IT_WAS], ids=["literal", "older"])
def test_the_older_flags_bring_back_the_older_update(changes, update, monkeypatch):
    """One action of actor_ema for the target, V the mean of the online Q by squared error, and
    exp(eta max(0, A) / std), at most 100 or not at all: all computed here from networks before."""
    calls = record(monkeypatch, gtp, "advantage_weights")
    run = update(gtp, **changes | {"eta": 12.0})
    obs, actions, next_obs = run.batch.observations, run.batch.actions, run.batch.next_observations
    with torch.no_grad():
        times = gtp.sampling_times(3, run.args)
        noise = run.inputs["normal"][1:2]
        next_actions = gtp.sample_actions(run.before["actor_ema"], next_obs, noise, times)
        next_q = run.before["critic_target"](next_obs, next_actions).amin(0)[0]
        target = run.batch.rewards + 0.99 * (1 - run.batch.terminals) * next_q
    critic_loss = (run.before["critic"](obs, actions) - target).square().mean(1).sum()
    assert_step(run, "critic", critic_loss)
    gap = run.nets["critic"](obs, actions).amin(0).detach() - run.before["value"](obs)[:, 0]
    assert_step(run, "value", gap.square().mean())
    assert torch.equal(run.metrics["value"], gap.square().mean().detach())
    advantage = gap.detach()
    free = (12 * advantage.clamp(min=0) / (advantage.std() + 1e-6)).exp()
    ((_, weights),) = calls
    unclipped = free < run.args.max_weight
    assert torch.equal(weights[unclipped], free[unclipped]) and free.max() > 100
    torch.testing.assert_close(weights, free.clamp(max=run.args.max_weight), rtol=1e-12, atol=0)
    assert sorted(run.nets) == ["actor", "actor_ema", "critic", "critic_target", "value"]
    for net in run.nets.values():
        assert not any(isinstance(part, torch.nn.LayerNorm) for part in net.modules())


# ---- the actor's part of an update -----------------------------------------------------------


@pytest.mark.parametrize("case", ["learned", "policy", "choosing", "cloning", "gtp_bc"])
def test_gtps_actor_steps_down_its_weighted_loss(case, update, monkeypatch):
    """Eq. 19 at the batch, its first noise and the drawn times, weights as computed or 1; actor_ema
    before its step is the teacher."""
    changes = {
        "learned": {"eta": 3.0},
        "policy": {"eta": 3.0, "value": "policy", "td_target": "policy"},
        "choosing": {"eta": 0.0, "num_candidates": 4},
        "cloning": {"eta": 0.0},
        "gtp_bc": {},
    }[case]
    script = gtp_bc if case == "gtp_bc" else gtp
    calls = record(monkeypatch, gtp, "advantage_weights")
    run = update(script, ema_every=2, **changes)
    uniform, grid, t_cdf = (run.inputs[name] for name in ("uniform", "grid", "t_cdf"))
    times = script.sample_times(uniform, grid, t_cdf, run.args)
    noise = run.inputs["normal"] if script is gtp_bc else run.inputs["normal"][0]
    weighted = case in ("learned", "policy")
    weights = calls[0][1] if weighted else torch.ones(6)
    assert len(calls) == weighted and (weights > 1).any() == weighted
    obs, actions = run.batch.observations, run.batch.actions
    args = replace(arguments(gtp), num_steps=3)
    loss, terms = gtp.actor_loss(run.before, obs, actions, noise, *times, weights, args)
    norm = assert_step(run, "actor", loss)
    assert run.metrics["actor_grad_norm"].item() == pytest.approx(norm)
    for name, term in terms.items():
        assert run.metrics[name].item() == pytest.approx(term.item())
    assert_average(run, "actor_ema", "actor", 0.25 / 2)


def test_the_diffusion_actor_steps_down_cloning_plus_eta_times_q(update):
    """The noise in x_t at the drawn t, and Q of the online critic after its step."""
    run = update(dql, eta=0.7)
    obs, noise, schedule = run.batch.observations, run.inputs["noise"], dql.vp_schedule(3, "cpu")
    t = run.inputs["t"]
    abar = schedule[0][t]
    x_t = abar.sqrt() * run.batch.actions + (1 - abar).sqrt() * noise
    bc = (run.before["actor"](obs, x_t, t[:, None]) - noise).square().mean()
    actions = sample(run, run.before["actor"], obs, noise_of(run, 0)[:, 0])
    loss = bc + 0.7 * dql.q_loss(run.nets["critic"], obs, actions, run.inputs["coin"])
    assert_step(run, "actor", loss)
    assert run.metrics["bc"].item() == pytest.approx(bc.item())
    assert run.metrics["actor"].item() == pytest.approx(loss.item())


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_the_teacher_of_a_consistency_model_is_the_averaged_actor_at_u(eta, update):
    """On a grid of 107 points; on one of two, u = sigma_min, where every network is the identity.
    Q is that of the online critic after its step."""
    run = update(cac, eta=eta)
    obs, noise, t, u = run.batch.observations, *(run.inputs[name] for name in ("noise", "t", "u"))
    assert cac.num_grid_points(LATE, run.args) == 107 and (u > 0.002).any()
    with torch.no_grad():
        goal = run.before["actor_ema"](obs, run.batch.actions + u * noise, u)
    start = run.before["actor"](obs, run.batch.actions + t * noise, t)
    loss = bc = (100 / (t - u) * (start - goal).square()).mean()
    if eta:
        actions = sample(run, run.before["actor"], obs, noise_of(run, 0)[:, 0])
        loss = bc + eta * cac.q_loss(run.nets["critic"], obs, actions, run.inputs["coin"])
    assert_step(run, "actor", loss)
    assert run.metrics["bc"].item() == pytest.approx(bc.item())
    assert run.metrics["actor"].item() == pytest.approx(loss.item())


@pytest.mark.parametrize("literal", [False, True])
def test_gtp_bc_has_the_losses_of_gtp_offline_with_weights_one(literal):
    """Bit for bit, so what is tested of one holds for the other."""
    nets = gtp.make_networks(gtp.default_args(dataset_path="x.npz", literal=literal), 3, 2)
    data = make_data()
    obs, actions, noise = data["observations"], data["actions"], data["actions"].flip(0)
    s, u, t = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).sort(1).values.T
    times = [time[:, None] + 0.01 for time in (t + 0.1, u + 0.05, s)]
    losses = []
    for script, weights in ((gtp, [torch.ones(20)]), (gtp_bc, [])):
        args = script.default_args(dataset_path="x.npz", literal=literal)
        losses.append(script.actor_loss(nets, obs, actions, noise, *times, *weights, args)[1])
    assert losses[0] == losses[1]


# ---- gradient steps and optimisers -----------------------------------------------------------


@pytest.mark.parametrize(("grad_norm", "factor"), [(0.0, 1.0), (10.0, 1.0), (2.5, 0.5)])
def test_a_gradient_is_shortened_to_its_bound_and_never_lengthened(grad_norm, factor):
    """Gradient (3, 4) of norm 5, SGD of rate .1; what was in .grad before is gone, and the other
    network in the loss is left alone."""
    network, other = torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(2, 1, bias=False)
    before, untouched = network.weight.detach().clone(), other.weight.detach().clone()
    network.weight.grad = torch.full((1, 2), 100.0)
    optimizers = {"actor": torch.optim.SGD(network.parameters(), 0.1)}
    loss = (network(torch.tensor([3.0, 4.0])) + other(torch.tensor([1.0, 1.0]))).sum()
    nets = {"actor": network, "critic": other}
    norms = gtp.gradient_steps(nets, optimizers, {"actor": loss}, grad_norm)
    expected = before - 0.1 * factor * torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(network.weight.detach(), expected)
    assert norms.keys() == {"actor"} and norms["actor"].item() == pytest.approx(5)
    assert other.weight.grad is None and torch.equal(other.weight, untouched)


@pytest.mark.skipif(torch.__version__ < "2.11", reason="--compile needs PyTorch 2.11")
@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.02, 0.003)])
@pytest.mark.parametrize("grad_norm", [0.0, 1.0, 1e3])
def test_the_step_of_compiled_updates_is_that_of_eager_ones(grad_norm, rates):
    """Adam's weights and averages of two networks after four steps, of gradients below and above
    the bound, which is each network's own; the graph is captured in one piece but run by eager
    PyTorch, whatever the device."""
    outcomes = []
    for compiled in (False, True):
        torch.manual_seed(0)
        nets = torch.nn.ModuleDict({"value": torch.nn.Linear(4, 3), "actor": torch.nn.Linear(4, 2)})
        nets.double()
        optimizers = {
            name: torch.optim.Adam(net.parameters(), lr=rate, fused=True)
            for (name, net), rate in zip(nets.items(), rates, strict=True)
        }
        x = torch.randn(8, 4).double()

        def step(scale, nets=nets, optimizers=optimizers, x=x):
            factors = {"value": scale, "actor": 3 - scale}
            losses = {name: factors[name] * net(x).square().mean() for name, net in nets.items()}
            return [*gtp.gradient_steps(nets, optimizers, losses, grad_norm).values()]

        norms = step(torch.tensor(1.0))  # Adam's averages begin with an eager step
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            if compiled:
                step = torch.compile(step, backend="eager", fullgraph=True)
            for scale in (0.01, 30.0, 2.0):
                norms += step(torch.tensor(scale))
        assert min(norms) < 1 < max(norms) < 1e3
        states = [item.state[p] for item in optimizers.values() for p in item.state]
        averages = [[state[key] for key in ("step", "exp_avg", "exp_avg_sq")] for state in states]
        outcomes.append([norms, list(nets.parameters()), averages])
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("rates", "calls"), [((0.02, 0.02), 1), ((0.02, 0.003), 2)])
def test_networks_of_one_rate_share_a_compiled_step_of_adam(rates, calls, monkeypatch):
    monkeypatch.setattr(gtp, "adam", lambda *args, **kwargs: counted.append(kwargs["lr"]))
    counted = []
    nets = torch.nn.ModuleDict({"value": torch.nn.Linear(4, 3), "actor": torch.nn.Linear(4, 2)})
    optimizers = {}
    losses = {}
    for (name, net), rate in zip(nets.items(), rates, strict=True):
        optimizers[name] = torch.optim.Adam(net.parameters(), lr=rate)
        losses[name] = net(torch.ones(1, 4)).sum()
        losses[name].backward(retain_graph=True)
        optimizers[name].step()  # its averages begin
    gtp.compiled_gradient_steps(nets, optimizers, losses, 1.0)
    assert len(counted) == calls and set(counted) == set(rates)


@pytest.mark.parametrize("script", FAMILY)
def test_each_part_learns_at_its_own_rate(script):
    """Adam at --learning-rate for the actor, at --critic-learning-rate for critic and V."""
    critic_rate = {} if script is gtp_bc else {"critic_learning_rate": 2e-3}
    args = arguments(script, learning_rate=1e-3, **critic_rate)
    nets = script.make_networks(args, 3, 2)
    optimizers = script.make_optimizers(nets, args)
    expected = {"actor": 1e-3}
    if script is not gtp_bc:
        expected["critic"] = 2e-3
    if script is gtp:
        expected["value"] = 2e-3
    assert {name: item.param_groups[0]["lr"] for name, item in optimizers.items()} == expected
    for name, optimizer in optimizers.items():
        (group,) = optimizer.param_groups
        assert list(map(id, group["params"])) == list(map(id, nets[name].parameters()))
        assert isinstance(optimizer, torch.optim.Adam)
        assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 0)


@pytest.mark.parametrize("script", FAMILY)
def test_averages_begin_as_copies_of_their_sources(script):
    """Of the same values, in a memory of their own."""
    nets = script.make_networks(arguments(script), 3, 2)
    pairs = {"actor_ema": "actor", "critic_target": "critic"}
    assert pairs.keys() & nets.keys() == ({"actor_ema"} if script is gtp_bc else pairs.keys())
    for average in pairs.keys() & nets.keys():
        sources = nets[pairs[average]].parameters()
        for parameter, source in zip(nets[average].parameters(), sources, strict=True):
            assert torch.equal(parameter, source) and parameter.data_ptr() != source.data_ptr()


# ---- bfloat16 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", FAMILY)
def test_bf16_is_of_the_actors_hidden_layers_alone(script, monkeypatch):
    """Both actors' three hidden layers give bfloat16, all else float32: outputs, embeddings, Q, V,
    parameters, gradients and metrics."""
    seen = {}

    def watch(name):
        def hook(module, given, result):
            seen.setdefault(name, set()).add(result.dtype)

        return hook

    args = arguments(script, bf16=True, **({} if script is gtp_bc else {"eta": 1.0}))
    nets = script.make_networks(args, 3, 2)
    for name, module in nets.named_modules():
        if isinstance(module, (torch.nn.Linear, script.EnsembleLinear)):
            module.register_forward_hook(watch(name))
    data = make_data()
    optimizers = script.make_optimizers(nets, args)
    inputs = script.draw_inputs(0, data, torch.Generator().manual_seed(0), args)
    metrics = script.update_networks(nets, optimizers, data, inputs, args)
    half = {f"{actor}.net.{i}" for actor in ("actor", "actor_ema") for i in (0, 2, 4)}
    half &= seen.keys()  # Diffusion-QL's averaged actor computes the TD target alone
    assert len(half) >= 3 and {f"actor.net.{i}" for i in (0, 2, 4)} <= half
    for name, kinds in seen.items():
        assert kinds == {torch.bfloat16 if name in half else torch.float32}, name
    tensors = [*metrics.values(), *nets.parameters()]
    tensors += [parameter.grad for parameter in nets.parameters() if parameter.grad is not None]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("script", FAMILY)
def test_bf16_is_near_float32(script):
    """The sampled actions of the same weights and noise differ by bfloat16's rounding at most."""
    found = []
    for bf16 in (False, True):
        args = arguments(script, bf16=bf16)
        torch.manual_seed(0)
        nets = script.make_networks(args, 3, 2)
        act = script.make_act(nets, replace(args, eval_actor="online"), 0)
        found.append(torch.from_numpy(act(np.ones((50, 3), np.float32))))
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0, atol=0.03)


# ---- what is drawn for an update -------------------------------------------------------------


def short(script, dataset, folder, **changes):
    """Arguments of a run of 12 updates on the tiny dataset."""
    args = script.default_args(dataset_path=str(dataset), device="cpu", num_updates=12)
    small = {"hidden_dim": 8, "batch_size": 4, "tensorboard": False, "run_dir": str(folder / "run")}
    return replace(args, **small | {"num_holdout": 24} | changes)


@pytest.mark.parametrize("script", FAMILY)
def test_updates_are_counted_from_zero_and_go_on_after_a_resume(
    script, dataset, tmp_path, monkeypatch
):
    """draw_inputs gets 0 to num_updates - 1: the schedules begin at their beginning."""
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args: None)
    calls = record(monkeypatch, script, "draw_inputs")
    args = short(script, dataset, tmp_path)
    script.train(args)
    assert [update for (update, *_), _ in calls] == list(range(12))
    script.train(replace(script.resume_args(args.run_dir), num_updates=15))
    assert [update for (update, *_), _ in calls] == list(range(15))


@pytest.mark.parametrize("script", GTP)
def test_times_are_drawn_from_the_grid_of_their_update(script):
    """1,000 updates: 11 points until 124, 21 from 125, 1281 at the end."""
    args = arguments(script, num_updates=1000, batch_size=500)
    for update, points in ((0, 11), (124, 11), (125, 21), (999, 1281)):
        generator = torch.Generator().manual_seed(0)
        inputs = script.draw_inputs(update, make_data(), generator, args)
        uniform, grid, t_cdf = (inputs[name] for name in ("uniform", "grid", "t_cdf"))
        torch.testing.assert_close(grid[:points], script.karras_grid(points, 0.002, 5.0))
        t, _, _ = script.sample_times(uniform, grid, t_cdf, args)
        assert (t > 0.002).all() and (t <= 5).all()
        assert points > 21 or len(t.unique()) == points - 1


def test_consistency_ac_draws_neighbours_on_the_grid_of_their_update():
    """N(k) is 6 where 25 < 4 + 22,496 k / 50,000 <= 36, so for k = 47 to 71."""
    args = arguments(cac, batch_size=500)
    for update, points in ((0, 2), (46, 5), (47, 6), (71, 6), (72, 7)):
        inputs = cac.draw_inputs(update, make_data(), torch.Generator().manual_seed(0), args)
        grid = cac.karras_grid(points, 0.002, 80.0)
        torch.testing.assert_close(inputs["u"].unique(), grid[:-1])
        torch.testing.assert_close(inputs["t"].unique(), grid[1:])


@pytest.mark.parametrize("script", FAMILY)
def test_every_row_is_as_likely(script):
    args = arguments(script, batch_size=14_000)
    rows = script.draw_inputs(0, make_data(), torch.Generator().manual_seed(0), args)["rows"]
    assert rows.shape == (14_000,)
    assert rows.bincount(minlength=14).tolist() == pytest.approx([1000] * 14, abs=140)


def test_the_diffusions_t_reaches_both_ends():
    """Indices 0 to T - 1, equally often."""
    args = arguments(dql, num_steps=5, batch_size=10_000)
    t = dql.draw_inputs(0, make_data(), torch.Generator().manual_seed(0), args)["t"]
    assert t.bincount().tolist() == pytest.approx([2000] * 5, abs=180)


# ---- acting ----------------------------------------------------------------------------------


class ActionValues(torch.nn.Module):
    """Q1 and Q2 are the two components of the action, times a scale."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, obs, actions):
        return self.scale * actions.movedim(-1, 0)


@pytest.mark.parametrize("script", CRITICS)
def test_the_candidate_of_the_best_smaller_target_q_acts(script, monkeypatch):
    """Sixteen candidates for each of five observations, Q so steep that the softmax is a choice."""
    args = arguments(script, num_candidates=16)
    torch.manual_seed(0)
    nets = script.make_networks(args, 3, 2)
    nets["critic_target"] = ActionValues(1e6)
    nets["critic"] = ActionValues(-1e6)
    calls = record(monkeypatch, script, "policy_samples")
    obs = torch.randn(5, 3).numpy()
    actions = script.make_act(nets, args, seed=0)(obs)
    ((_, candidates),) = calls
    assert candidates.shape == (16, 5, 2) and actions.shape == (5, 2)
    best = candidates.amin(2).argmax(0)
    assert len(best.unique()) > 1
    np.testing.assert_array_equal(actions, candidates[best, torch.arange(5)].numpy())


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize(("eval_actor", "name"), [("ema", "actor_ema"), ("online", "actor")])
def test_eval_actor_says_which_actor_acts(script, eval_actor, name):
    args = arguments(script, eval_actor=eval_actor)
    nets = script.make_networks(args, 3, 2)
    other = script.make_networks(args, 3, 2)["actor"]
    nets["actor_ema"].load_state_dict(other.state_dict())
    obs, noise = make_data()["observations"], torch.randn(20, nets["actor"].noise_dim)
    alone = {"actor": nets[name], "actor_ema": nets[name]}
    expected = script.policy_samples(alone, obs, noise, 3, args)
    assert torch.equal(script.policy_samples(nets, obs, noise, 3, args), expected)
    nets[name].load_state_dict(script.make_networks(args, 3, 2)["actor"].state_dict())
    assert not torch.equal(script.policy_samples(nets, obs, noise, 3, args), expected)


# ---- data ------------------------------------------------------------------------------------


def test_the_held_out_rows_are_the_same_for_every_seed(dataset, tmp_path):
    """Also whatever state the global generator is in; they and the training rows make up all."""
    found = []
    for seed in (0, 7):
        torch.manual_seed(seed)
        data, holdout, _ = gtp.load_data(short(gtp, dataset, tmp_path, seed=seed))
        found.append((holdout, data["rows"]))
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][0]["observations"], found[1][0]["observations"])
    assert torch.equal(found[0][0]["actions"], found[1][0]["actions"])
    rows, count = data["rows"], len(data["rewards"])
    assert len(holdout["actions"]) == 23 == count // 10
    assert len(rows.unique()) == len(rows) == count - 23
    left = torch.ones(count, dtype=torch.bool).index_fill(0, rows, False)
    for key in ("observations", "actions"):  # pairs stay together
        torch.testing.assert_close(holdout[key].sum(0), data[key][left].sum(0))
    where = [
        (data["observations"] == obs).all(1).nonzero().item() for obs in holdout["observations"]
    ]
    assert torch.equal(data["actions"][where], holdout["actions"])


def test_rewards_are_shifted_then_scaled(dataset, tmp_path):
    """r' = 4 (r - 0.5), AntMaze's."""
    plain, _, _ = gtp.load_data(short(gtp, dataset, tmp_path))
    changes = {"reward_scale": 4.0, "reward_shift": -0.5}
    tuned, _, _ = gtp.load_data(short(gtp, dataset, tmp_path, **changes))
    torch.testing.assert_close(tuned["rewards"], 4 * plain["rewards"] - 2)


@pytest.mark.parametrize(
    ("env_id", "sizes", "limit"),
    [("hopper-medium-v2", (11, 3), 1000), ("antmaze-umaze-v0", (29, 8), 700), ("", (11, 3), 10**9)],
)
def test_a_file_without_timeouts_is_cut_at_the_tasks_step_limit(env_id, sizes, limit, tmp_path):
    """2,500 steps without an end: the last has no successor, and each `limit`-th is a time-out."""
    written = make_dataset(2500, *sizes)
    del written["timeouts"]
    written["terminals"][:] = False
    np.savez(tmp_path / "data.npz", **written)
    args = gtp.default_args(env_id=env_id, dataset_path=str(tmp_path / "data.npz"), device="cpu")
    data, _, described = gtp.load_data(args)
    kept = [step - 1 for step in range(1, 2500) if step % limit]
    np.testing.assert_array_equal(data["observations"], written["observations"][kept])
    assert described["transitions"] == len(kept)


# ---- tables of tasks -------------------------------------------------------------------------

MUJOCO = [
    f"{robot}-{level}-v2"
    for level in ("medium", "medium-replay", "medium-expert")
    for robot in ("halfcheetah", "hopper", "walker2d")
]
MAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
TASKS = [*MUJOCO, *(f"antmaze-{maze}-v0" for maze in MAZES)]
# One value a task, in this order: the robots' medium, medium-replay and medium-expert, the mazes.
NORMS = [9, 9, 1, 2, 4, 4, 7, 5, 5, 2, 3, 2, 1, 10, 7]
RATES = [3e-4] * 11 + [1e-3] + [3e-4] * 3
BACKUPS = [False] * 10 + [True] * 5
TABLES = {
    gtp: {
        "learning_rate": RATES,
        "eta": [5, 1, 5, 5, 5, 5, 5, 5, 5, 5, 1, 5, 5, 5, 5],
        "grad_norm": NORMS,
        "max_q_backup": BACKUPS,
        "num_steps": [5] * 15,
        "num_candidates": [1] * 15,
        "eval_actor": ["ema"] * 15,
    },
    gtp_bc: {
        "learning_rate": RATES,
        "grad_norm": NORMS,
        "num_steps": [5] * 15,
        "eval_actor": ["ema"] * 15,
    },
    dql: {
        "learning_rate": RATES,
        "eta": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 2, 2, 3, 4.5, 3.5],
        "grad_norm": NORMS,
        "max_q_backup": BACKUPS,
        "top_k": [1, 2, 1, 0, 2, 1, 0, 2, 1, 2, 2, 1, 1, 2, 1],
        "num_steps": [5] * 15,
        "num_candidates": [50] * 15,
        "eval_actor": ["online"] * 15,
    },
    cac: {
        "learning_rate": RATES,
        "eta": [1, 0.1, 1, 1, 0.1, 0.1, 1, 1, 1, 0.01, 0.01, 0.01, 0.01, 4.5, 3.5],
        "grad_norm": [*NORMS[:-1], 2],
        "max_q_backup": BACKUPS,
        "q_norm": [name in "walker2d-medium-v2 walker2d-medium-expert-v2" for name in MUJOCO]
        + [True, True, False, True, True, True],
        "top_k": [2, 1, 3, 2, 5, 2, 4, 5, 1, 4, 4, 8, 1, 2, 5],
        "num_steps": [2, 2, 5, 2, 2, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2],
        "num_candidates": [50] * 15,
        "eval_actor": ["online"] * 15,
        "scale_consistency_loss": [True] * 15,
    },
}


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("number", range(15), ids=TASKS)
def test_a_task_has_its_published_values(script, number):
    antmaze = number > 8
    expected = {name: column[number] for name, column in TABLES[script].items()}
    expected |= {"num_updates": 1_000_000 if antmaze else 2_000_000}
    every = 0 if antmaze or script in (gtp, gtp_bc) else 50_000
    expected |= {"num_eval_episodes": 100 if antmaze else 10, "eval_freq": every}
    expected |= {"reward_scale": 4 if antmaze else 1, "reward_shift": -0.5 if antmaze else 0}
    if script is not gtp_bc:
        expected |= {"critic_learning_rate": 3e-4, "gamma": 0.99}
    expected |= {"tau": 0.005, "batch_size": 256, "hidden_dim": 256}
    args = script.default_args(env_id=TASKS[number], device="cpu")
    assert {name: getattr(args, name) for name in expected} == expected


# Adroit's pen and the kitchen, whose data are Minari's: not in the paper, so GTP has Diffusion-QL's
# rates and norms and an eta of its own default.
MINARI = ["pen/human", "pen/cloned", "kitchen/complete", "kitchen/partial", "kitchen/mixed"]
MINARI_RATES = [3e-5, 3e-5, 3e-4, 3e-4, 3e-4]
MINARI_NORMS = [7, 8, 9, 10, 10]
MINARI_UPDATES = [1_000_000, 1_000_000, 250_000, 1_000_000, 1_000_000]
MINARI_TABLES = {
    gtp: {"eta": [5] * 5, "grad_norm": MINARI_NORMS, "num_updates": MINARI_UPDATES},
    gtp_bc: {"grad_norm": MINARI_NORMS, "num_updates": MINARI_UPDATES},
    dql: {
        "eta": [0.15, 0.1, 0.005, 0.005, 0.005],
        "grad_norm": MINARI_NORMS,
        "num_updates": MINARI_UPDATES,
        "top_k": [2, 2, 2, 2, 0],
        "num_steps": [5] * 5,
        "max_q_backup": [False] * 5,
    },
    cac: {
        "eta": [0.01, 0.01, 0.5, 0.5, 0.5],
        "grad_norm": [7, 8, 2, 2, 2],
        "num_updates": [1_000_000, 500_000, 1_500_000, 1_500_000, 1_500_000],
        "top_k": [2, 5, 4, 1, 2],
        "num_steps": [2] * 5,
        "q_norm": [True] * 5,
        "max_q_backup": [False] * 5,
        "scale_consistency_loss": [True] * 5,
    },
}


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("number", range(5), ids=MINARI)
def test_pen_and_kitchen_have_the_baselines_values(script, number):
    expected = {name: column[number] for name, column in MINARI_TABLES[script].items()}
    expected |= {"learning_rate": MINARI_RATES[number]}
    expected |= {"reward_scale": 1, "reward_shift": 0, "num_eval_episodes": 10}
    expected |= {"reward_normalization": "std" if number < 2 else "none", "d4rl_semantics": False}
    for prefix in ("", "minari:"):
        args = script.default_args(env_id=f"{prefix}D4RL/{MINARI[number]}-v2", device="cpu")
        assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize("script", FAMILY)
def test_no_other_task_has_values_of_its_own(script):
    named = {task.rpartition("-v")[0] for task in TASKS}
    assert set(script.TASKS) == named | {f"D4RL/{task}" for task in MINARI}
    assert script.TOYS.keys() == offline_tasks.toys.TOYS.keys()


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize(
    "env_id",
    ["antmaze-giant", "pointmaze-open", "multigoal-mine", "my-hopper-medium-replay", "hopper-mine"],
)
def test_own_environments_get_nothing_of_their_namesakes(script, env_id):
    given = {"dataset_path": "f", "device": "cpu", "num_updates": 4_000}
    args = script.default_args(env_id=f"{env_id}-v0", **given)
    general = script.default_args(**given)
    assert args == replace(general, env_id=f"{env_id}-v0")


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("env_id", ["antmaze-large-navigate", "pointmaze-medium-stitch"])
def test_tasks_of_ogbench_get_nothing_of_their_namesakes(script, env_id):
    """No shift of D4RL's AntMaze rewards, none of the toy's defaults."""
    args = script.default_args(env_id=f"{env_id}-singletask-task2-v0", device="cpu")
    general = script.default_args(dataset_path="f", device="cpu")
    changed = {k for k, value in vars(args).items() if value != getattr(general, k)}
    assert changed == {"env_id", "dataset_path", "num_updates", "num_eval_episodes"}
    assert (args.num_updates, args.num_eval_episodes) == (1_000_000, 50)
    assert (args.reward_scale, args.reward_shift) == (1, 0)
