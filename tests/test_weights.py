"""Weights of the actor's loss and what they rest on: V's expectile loss, LayerNorm in the critic.

All by hand; how an update uses them is in test_wiring.py, Eq. 14 to the letter in test_gtp_math.py.
"""

import math
from dataclasses import replace

import pytest
import torch

import gtp_offline as gtp

ADVANTAGE = (-1.0, 0.0, 1.0, 2.0)  # unbiased standard deviation sqrt(5/3)
STD = math.sqrt(5 / 3)


def weights_of(eta, max_weight, *how, advantage=ADVANTAGE):
    """advantage_weights in float64."""
    advantage = torch.tensor(advantage).double()
    return gtp.advantage_weights(advantage, eta, max_weight, *how)


def assert_weights(weights, expected):
    expected = torch.tensor(expected).double()
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)


def over_mean(weights):
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights]


# ---- weights by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("max_weight", [5.0, math.inf])
@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_weights_by_hand(eta, max_weight, truncate):
    """exp(eta A / std), at most max_weight, as it is or over its mean; a negative A counts as 0
    with truncation and else makes a weight below 1."""
    kept = ADVANTAGE
    if truncate:
        kept = [max(0, a) for a in kept]
    free = [math.exp(eta * a / STD) for a in kept]
    expected = [min(weight, max_weight) for weight in free]
    plain = weights_of(eta, max_weight, "none", truncate)
    assert_weights(plain, expected)
    normalized = weights_of(eta, max_weight, "mean", truncate)
    assert_weights(normalized, over_mean(expected))
    assert (expected[0] < 1) == (not truncate)


def test_weights_are_not_normalized_and_truncated_where_nothing_is_said():
    said = weights_of(2.0, 5.0, "none", True)
    assert torch.equal(weights_of(2.0, 5.0), said)


@pytest.mark.parametrize("shift", [-30.0, 30.0])
def test_only_differences_count_for_normalized_weights(shift):
    """Without truncation and without a bound a V too low or too high changes nothing."""
    shifted = [a + shift for a in ADVANTAGE]
    moved = weights_of(2.0, math.inf, "mean", False, advantage=shifted)
    kept = weights_of(2.0, math.inf, "mean", False)
    torch.testing.assert_close(moved, kept)


def test_the_bound_comes_before_the_mean():
    """e^(5 * 1 / std) = 48 and e^(5 * 2 / std) = 2,311 are both 20: two alike, (0, 0, 2, 2) but for
    the others' e^-3.9 = .02 and 1."""
    low = math.exp(-5 / STD)
    weights = weights_of(5.0, 20.0, "mean", False)
    assert_weights(weights, over_mean([low, 1, 20, 20]))


def test_a_bound_below_one_leaves_nothing_to_choose():
    """Every A above log(.5) std / eta has weight .5, over its mean 1."""
    assert_weights(weights_of(5.0, 0.5, "none", True), [0.5] * 4)
    assert_weights(weights_of(5.0, 0.5, "mean", True), [1.0] * 4)


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalized_weights_do_not_overflow(dtype, truncate):
    """Eta 1e4 and no bound: e^15492 is beyond any float, the one best action has all the weight."""
    advantage = torch.tensor(ADVANTAGE, dtype=dtype)
    weights = gtp.advantage_weights(advantage, 1e4, math.inf, "mean", truncate)
    assert weights.tolist() == [0, 0, 0, 4]
    losses = -advantage.square()
    weights = gtp.advantage_weights(losses, 1e4, math.inf, "mean", truncate)
    assert weights.isfinite().all() and weights.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("eta", [1.0, 1e4])
def test_weights_as_they_are_stop_at_e_to_the_30(eta):
    """No bound given: finite in float32, and below the stop as they are."""
    weights = weights_of(eta, math.inf, "none", False)
    exponents = [eta * a / STD for a in ADVANTAGE]
    expected = [math.exp(min(exponent, 30)) for exponent in exponents]
    # eps in std + eps counts where the exponent is large
    expected = torch.tensor(expected).double()
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("normalization", ["none", "mean"])
@pytest.mark.parametrize("value", [-3.0, 0.0, 0.1, 1e4])
def test_equal_advantages_have_equal_weights(value, normalization, truncate):
    """Rounding makes no contrast: a constant A of either sign weighs every action 1."""
    advantage = torch.full((256,), value)
    weights = gtp.advantage_weights(advantage, 5.0, 20.0, normalization, truncate)
    assert torch.equal(weights, torch.ones(256))


@pytest.mark.parametrize("normalization", ["none", "mean"])
def test_small_advantages_are_measured_by_the_floor(normalization):
    """Below it, the floor takes the place of std(A); above it, nothing changes."""
    weights = [math.exp(0.5 * advantage) for advantage in ADVANTAGE]  # eta 2, floor 4
    expected = over_mean(weights) if normalization == "mean" else weights
    assert_weights(weights_of(2.0, math.inf, normalization, False, 4.0), expected)
    usual = weights_of(2.0, math.inf, normalization, False)
    assert torch.equal(weights_of(2.0, math.inf, normalization, False, STD - 0.01), usual)


def test_the_weights_mean_is_one_whatever_the_scale_of_rewards():
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(256, generator=generator)
    weights = gtp.advantage_weights(advantage, 5.0, 20.0, "mean", False)
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    scaled = gtp.advantage_weights(100 * advantage, 5.0, 20.0, "mean", False)
    torch.testing.assert_close(scaled, weights, rtol=1e-3, atol=1e-6)


# ---- V's loss --------------------------------------------------------------------------------

GAP = (-2.0, -1.0, 0.5, 3.0)


@pytest.mark.parametrize(
    ("expectile", "expected"),
    [
        (0.5, (4 + 1 + 0.25 + 9) / 4),
        (0.9, 2 * (0.1 * 5 + 0.9 * 9.25) / 4),
        (0.1, 2 * (0.9 * 5 + 0.1 * 9.25) / 4),
    ],
)
def test_expectile_loss_by_hand(expectile, expected):
    """Q above V counts expectile, Q below V counts 1 - expectile; .5 is the mean square."""
    loss = gtp.expectile_loss(torch.tensor(GAP), expectile)
    assert loss.shape == () and loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(("expectile", "value"), [(0.5, 0.3), (0.9, 0.27 / 0.34), (0.7, 0.5)])
def test_the_best_v_is_the_expectile_of_q(expectile, value):
    """Q = 1 with probability .3, else 0: V = .3 e / (.3 e + .7 (1 - e))."""
    above = 0.3 * expectile
    below = 0.7 * (1 - expectile)
    assert value == pytest.approx(above / (above + below))
    q = (torch.arange(10) < 3).double()
    v = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    gtp.expectile_loss(q - v, expectile).backward()
    assert v.grad.item() == pytest.approx(0, abs=1e-7)


# ---- networks --------------------------------------------------------------------------------


def arguments(**changes):
    args = gtp.default_args(dataset_path="x.npz", device="cpu")
    return replace(args, hidden_dim=16, **changes)


def by_hand(layers, x, norm):
    """Three hidden layers: linear, LayerNorm of mean 0 and variance 1 or not, Mish; then linear."""
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = x @ w + b
        if norm == "layer":
            centred = x - x.mean(-1, keepdim=True)
            variance = centred.square().mean(-1, keepdim=True)
            x = centred / (variance + 1e-5).sqrt()
        softplus = (1 + x.exp()).log()
        x = x * softplus.tanh()
    return x @ weight + bias


def layers_of(parameters, transposed):
    weights, biases = parameters[::2], parameters[1::2]
    if transposed:
        weights = [weight.T for weight in weights]
    return list(zip(weights, biases, strict=True))


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_critic_and_value_by_hand(norm):
    """Their four layers' weights and biases are all that they learn, with LayerNorm too."""
    torch.manual_seed(0)
    nets = gtp.make_networks(arguments(critic_norm=norm), 3, 2).double()
    obs, actions = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    pairs = torch.cat((obs, actions), 1)
    for name in ("critic", "critic_target"):
        parameters = list(nets[name].parameters())
        assert len(parameters) == 8
        expected = by_hand(layers_of(parameters, False), pairs.expand(2, 5, 5), norm)
        torch.testing.assert_close(nets[name](obs, actions), expected[..., 0])
    parameters = list(nets["value"].parameters())
    assert len(parameters) == 8
    expected = by_hand(layers_of(parameters, True), obs, norm)
    torch.testing.assert_close(nets["value"](obs), expected)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_layer_norm_takes_the_scale_and_the_level_of_a_layer_away(norm):
    """A first layer five times as large, and all of it higher by 7, changes no Q and no V."""
    torch.manual_seed(0)
    nets = gtp.make_networks(arguments(critic_norm=norm), 3, 2).double()
    obs, actions = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    before = [nets["critic"](obs, actions), nets["value"](obs)]
    with torch.no_grad():
        for name in ("critic", "value"):
            weight, bias, *_ = nets[name].parameters()
            weight *= 5
            bias *= 5
            bias += 7
    after = [nets["critic"](obs, actions), nets["value"](obs)]
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old, new, rtol=1e-3, atol=1e-3) == (norm == "layer")


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_the_actor_has_no_layer_norm(norm):
    nets = gtp.make_networks(arguments(critic_norm=norm), 3, 2)
    found = {
        name
        for name, net in nets.items()
        if any(isinstance(part, torch.nn.LayerNorm) for part in net.modules())
    }
    assert found == ({"critic", "critic_target", "value"} if norm == "layer" else set())


CRITICS = {"critic", "critic_target"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, CRITICS | {"value"}),
        ({"td_target": "policy"}, CRITICS | {"value"}),
        ({"td_target": "policy", "value": "policy"}, CRITICS),
        ({"eta": 0.0, "num_candidates": 4}, CRITICS | {"value"}),
        ({"eta": 0.0, "num_candidates": 4, "td_target": "policy"}, CRITICS),
        ({"eta": 0.0}, set()),
    ],
)
def test_there_is_a_v_where_weights_or_targets_need_it(changes, expected):
    """Weights with a learned V, and the expectile target also of a critic that only chooses."""
    args = arguments(**changes)
    nets = gtp.make_networks(args, 3, 2)
    assert nets.keys() - {"actor", "actor_ema"} == expected
    assert gtp.make_optimizers(nets, args).keys() == expected - {"critic_target"} | {"actor"}
