import pytest

from zerosum.recipes.adasg import Config


@pytest.mark.parametrize("band", [(0.9, 0.1), (-0.1, 0.8), (0.3, 1.1), (0.3, float("inf"))])
def test_a_band_that_holds_no_sample_is_refused(band):
    low, high = band
    with pytest.raises(ValueError, match=f"--low {low} --high {high}: expected a band within 0 to 1"):
        Config(low=low, high=high).check()


def test_a_band_may_be_one_point_or_all():
    Config(low=0.5, high=0.5).check()
    Config(low=0.0, high=1.0).check()
