import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.strategies import logits, normal, pairs, seeds
from zerosum.objectives import (
    adaptability,
    adaptability_band,
    agreement,
    agreement_loss,
    calibration_loss,
    disagreement,
    disagreement_loss,
    distillation_loss,
    entropy,
    half_variance,
    normalized_entropy,
)

SCALARS = {
    "band": lambda p, q, labels: adaptability_band(p, q),
    "disagreement": disagreement_loss,
    "agreement": agreement_loss,
    "calibration": lambda p, q, labels: calibration_loss(p, q),
    "adaptability": lambda p, q, labels: adaptability(p, q).mean(),
    "adaptability from zero": lambda p, q, labels: adaptability(p, q, floor="zero").mean(),
}
scalars = pytest.mark.parametrize("loss", SCALARS.values(), ids=SCALARS)
floors = pytest.mark.parametrize("floor", ["batch", "zero"])


@pytest.mark.parametrize("case", range(4))
def test_published_values_and_gradients(shared, case):
    fixture = load_file(shared("fixtures/adasg_reference.safetensors"))
    reference = {key.split(".", 2)[2]: value for key, value in fixture.items() if key.startswith(f"losses.{case}.")}
    p = reference["teacher_logits"].requires_grad_()
    q = reference["student_logits"].requires_grad_()
    labels = reference["labels"]
    values = {
        "disagreement_loss": disagreement_loss(p, q, labels),
        "agreement_loss": agreement_loss(p, q, labels),
        "adaptability_band": adaptability_band(p, q),
        "calibration_loss_T20": calibration_loss(p, q),
    }
    for name, value in values.items():
        torch.testing.assert_close(value, reference[name], rtol=1e-5, atol=0)
    generator_loss = values["adaptability_band"] + 0.1 * values["disagreement_loss"] + 0.1 * values["agreement_loss"]
    for_p, for_q = torch.autograd.grad(generator_loss, (p, q))
    (calibration,) = torch.autograd.grad(values["calibration_loss_T20"], q)
    for name, found in {"grad_teacher": for_p, "grad_student": for_q, "grad_calibration": calibration}.items():
        torch.testing.assert_close(found, reference[name], rtol=1e-5, atol=1e-5 * reference[name].abs().max().item())


def test_values_by_hand():
    p = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    q = torch.zeros(2, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1])
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    log2 = math.log(2)
    torch.testing.assert_close(disagreement(p, q), torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(agreement(p, q), torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(entropy(p), torch.tensor([h, log2], dtype=torch.float64))
    # The sharper sample sets the floor: it has 0, the uniform one 1.
    torch.testing.assert_close(normalized_entropy(p), torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(normalized_entropy(p, floor="zero"), torch.tensor([h / log2, 1.0], dtype=torch.float64))
    assert adaptability_band(p, q).item() == pytest.approx(0.3 / 2 + 0.2 / 2)
    assert disagreement_loss(p, q, labels).item() == pytest.approx((-math.log(0.75) + log2) / 2)
    assert calibration_loss(p, q, temperature=1.0).item() == pytest.approx(-(h + log2) / 2)


@scalars
@given(pairs(max_scale=10.0), seeds)
def test_a_shift_of_a_samples_logits_changes_nothing(loss, pair, seed):
    p, q, labels = pair
    shift = normal(seed, len(p), 1)
    torch.testing.assert_close(loss(p + shift, q - 2 * shift, labels), loss(p, q, labels), rtol=1e-7, atol=1e-8)


@scalars
@given(pairs(max_scale=10.0), seeds)
def test_the_order_of_classes_and_samples_changes_nothing(loss, pair, seed):
    p, q, labels = pair
    classes = torch.randperm(p.shape[1], generator=torch.Generator().manual_seed(seed))
    samples = torch.randperm(p.shape[0], generator=torch.Generator().manual_seed(seed))
    renamed = torch.argsort(classes)[labels]
    torch.testing.assert_close(
        loss(p[samples][:, classes], q[samples][:, classes], renamed[samples]), loss(p, q, labels), rtol=1e-7, atol=1e-8
    )


@given(pairs(dtype=torch.float32))
def test_bounds(pair):
    p, q, labels = pair
    samples, classes = p.shape
    for probabilities in (disagreement(p, q), agreement(p, q)):
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(samples))
    h = entropy(p)
    assert h.shape == (samples,)
    assert (h >= 0).all()
    assert (h <= math.log(classes) * (1 + 1e-5)).all()
    for floor in ("batch", "zero"):
        values = adaptability(p, q, floor=floor)
        assert values.shape == (samples,)
        assert (values >= 0).all()
        assert (values <= 1).all()
    assert 0 <= adaptability_band(p, q) <= 0.3 + 1e-6
    assert disagreement_loss(p, q, labels) >= 0
    assert agreement_loss(p, q, labels) >= 0
    assert -(400 * math.log(classes)) * (1 + 1e-5) <= calibration_loss(p, q) <= 0


@floors
@given(logits())
def test_networks_that_agree_up_to_a_shift_leave_nothing_to_adapt_to(floor, p):
    assert adaptability(p, p, floor=floor).max() <= 1e-12
    assert calibration_loss(p, p).item() == pytest.approx(-400 * math.log(p.shape[1]))


@floors
@given(st.sampled_from([2, 10, 1000]), st.integers(1, 6))
def test_one_hot_disagreement_is_all_adaptability(floor, classes, samples):
    p = torch.zeros(samples, classes)
    p[torch.arange(samples), torch.arange(samples) % classes] = 1e4
    torch.testing.assert_close(adaptability(p, torch.zeros_like(p), floor=floor), torch.ones(samples))
    assert disagreement_loss(p, torch.zeros_like(p), torch.arange(samples) % classes) == 0


@floors
def test_a_batch_of_one_has_no_spread_to_normalise_by(floor):
    p = torch.tensor([[2.0, 0.0, 0.0]])
    value = adaptability(p, torch.zeros_like(p), floor=floor).item()
    assert value == (1.0 if floor == "batch" else pytest.approx(1 - entropy(p).item() / math.log(3)))


@scalars
@given(pairs(dtype=torch.float32))
def test_gradients_stay_finite_up_to_ten_thousand(loss, pair):
    p, q, labels = pair
    p.requires_grad_()
    q.requires_grad_()
    for tensor, gradient in zip(
        (p, q), torch.autograd.grad(loss(p, q, labels), (p, q), allow_unused=True), strict=True
    ):
        assert gradient is None or torch.isfinite(gradient).all(), tensor


@scalars
@given(seeds, st.integers(2, 4), st.sampled_from([2, 3, 10]))
def test_gradients_match_finite_differences(loss, seed, samples, classes):
    p, q = normal(seed, samples, classes), normal(seed + 1, samples, classes)
    labels = torch.arange(samples) % classes
    # p is detached in the calibration loss: Q's gradient is the one that it has.
    assert torch.autograd.gradcheck(lambda q: loss(p, q, labels), q.requires_grad_())


def test_only_the_quantized_network_learns_from_the_calibration_loss():
    p, q = normal(0, 3, 5).requires_grad_(), normal(1, 3, 5).requires_grad_()
    for_p, for_q = torch.autograd.grad(calibration_loss(p, q), (p, q), allow_unused=True)
    assert for_p is None
    assert for_q.abs().sum() > 0


def test_unknown_floor_and_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="'median'"):
        normalized_entropy(torch.zeros(2, 3), floor="median")
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        normalized_entropy(torch.zeros(2, 1))


def test_half_variance_by_hand():
    p, q = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(half_variance(p, q), torch.tensor([1.0, 0.0]))  # of (0, 3, 0): 2, and its half


@given(pairs(max_scale=1.0), st.floats(-100, 100))
def test_the_losses_of_data_free_quantization_go_to_half_the_variance(pair, shift):
    p, q, _ = pair
    expected = half_variance(p, q)
    torch.testing.assert_close(half_variance(p + shift, q), expected, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(half_variance(q, p), expected)
    temperature, classes = 1e4, p.shape[1]
    divergence = F.kl_div(
        (q / temperature).log_softmax(1), (p / temperature).log_softmax(1), log_target=True, reduction="none"
    )
    torch.testing.assert_close(temperature**2 * divergence.sum(1), expected, atol=1e-6, rtol=1e-2)
    entropies = calibration_loss(p, q, temperature) + temperature**2 * math.log(classes)
    torch.testing.assert_close(entropies, expected.mean(), atol=1e-6, rtol=1e-2)


def spread(x):
    return (x.amax(1) - x.amin(1)).max()


@given(pairs(max_samples=1, max_scale=10.0), st.sampled_from([1.0, 5.0, 20.0, 100.0]))
def test_how_far_they_are_from_half_the_variance_at_a_temperature(pair, temperature):
    """Each is that of δ over classes with weights between p's and q's, or δ's and none, softened: within a factor
    exp(R / T) of the plain one, with R the spread of those logits. At T 20, within 1 % where they spread over 0.2."""
    p, q, _ = pair
    plain, classes = half_variance(p, q).mean(), p.shape[1]
    divergence = distillation_loss(p, q, temperature)
    entropies = calibration_loss(p, q, temperature) + temperature**2 * math.log(classes)
    for found, reach in ((divergence, max(spread(p), spread(q))), (entropies, spread(p - q))):
        factor = torch.exp(reach / temperature)
        rounding = 1e-12 * temperature**2 * math.log(classes)
        assert plain / factor * (1 - 1e-9) - rounding <= found <= plain * factor * (1 + 1e-9) + rounding
