"""Random parts of images: where they lie, and what is seen of an image there."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from zerosum.players.crops import cropped, random_crops


@given(st.floats(0.05, 1), st.integers(0, 2**31))
def test_parts_lie_within_the_image_and_have_the_area_asked_for(least, seed):
    torch.manual_seed(seed)
    crops = random_crops(50, least)
    width, height = crops[:, 0, 0].abs(), crops[:, 1, 1]
    assert (crops[:, 0, 1] == 0).all()
    assert (crops[:, 1, 0] == 0).all()
    assert (width + crops[:, 0, 2].abs() <= 1 + 1e-6).all()
    assert (height + crops[:, 1, 2].abs() <= 1 + 1e-6).all()
    # A side that would be longer than the image's is cut, which the longest aspect, 4/3, can cost.
    assert (width * height >= least * (3 / 4) - 1e-6).all()
    assert (width * height <= 1 + 1e-6).all()


def test_a_crop_of_all_the_area_is_the_image_but_for_its_aspect():
    torch.manual_seed(0)
    crops = random_crops(200, least=1.0)
    assert (torch.maximum(crops[:, 0, 0].abs(), crops[:, 1, 1]) == 1).all()
    assert set(crops[:, 0, 0].sign().tolist()) == {-1.0, 1.0}


def test_a_share_is_left_whole():
    torch.manual_seed(0)
    crops = random_crops(400, least=0.5, share=0.25)
    whole = (crops == torch.eye(2, 3)).all(dim=(1, 2)).float().mean()
    assert 0.65 < whole < 0.85


def test_a_part_by_hand():
    """The right half of a ramp, twice as wide: pixel centres at -0.75, …, 0.75 of the half's own width."""
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4)
    part = torch.tensor([[[0.5, 0, 0.5], [0, 1, 0]]])
    torch.testing.assert_close(cropped(ramp, part), torch.tensor([[[[1.75, 2.25, 2.75, 3.0]]]]))
    flipped = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(cropped(ramp, flipped), ramp.flip(3))


def test_gradients_reach_the_images():
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    cropped(images, random_crops(2, 0.5)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
