"""Of two tensors by lot: what comes from where, how often, and where gradients go."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerosum.players.mixing import mixed

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.contiguous().transpose(1, 2),
}


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    share=st.floats(0, 1),
    layout=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_each_element_is_one_of_the_two_and_each_has_its_gradient(shape, share, layout, dtype):
    values, others = (  # which differ everywhere
        LAYOUTS[layout](sign * (1 + torch.rand(shape))).to(dtype).requires_grad_() for sign in (1, -1)
    )
    found = mixed(values, others, share)
    assert found.dtype == dtype
    assert ((found == values) | (found == others)).all()
    of_values, of_others = torch.autograd.grad(found.sum(), (values, others), allow_unused=True, materialize_grads=True)
    assert torch.equal(of_values + of_others, torch.ones_like(found))
    assert torch.equal(of_others == 1, found == others)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_as_many_come_from_the_others_as_were_asked_for(share, layout):
    torch.manual_seed(0)
    shape = (8, 16, 32, 32)
    taken = mixed(*(LAYOUTS[layout](torch.full(shape, value)) for value in (0.0, 1.0)), share)
    assert taken.mean().item() == pytest.approx(share, abs=0.006)  # four standard errors
    spread = (share * (1 - share) / taken.shape[1]) ** 0.5
    assert taken.mean(dim=1).std().item() == pytest.approx(spread, abs=0.005)  # each by a lot of its own
    assert taken.stride() == LAYOUTS[layout](torch.empty(shape)).stride()


def test_a_seed_fixes_the_lots():
    lots = []
    for _ in range(2):
        torch.manual_seed(3)
        lots.append(mixed(torch.zeros(99), torch.ones(99), 0.5))
    assert torch.equal(*lots)
    assert not torch.equal(lots[0], mixed(torch.zeros(99), torch.ones(99), 0.5))


def test_what_is_not_finite_stays_what_it_is():
    values = torch.tensor([-torch.inf, torch.inf, torch.nan, 1.0] * 50)
    assert torch.equal(mixed(values, values.clone(), 0.5).nan_to_num(7.0), values.nan_to_num(7.0))
