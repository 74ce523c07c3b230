"""A sample of timm's families, as benchmarks/coverage.py checks them all."""

import pytest

from benchmarks.coverage import check, families

SAMPLE = {
    "byobnet": "test_byobnet",
    "convnext": "test_convnext",
    "efficientnet": "test_efficientnet",
    "maxxvit": "test_coatnet",
    "nfnet": "test_nfnet",  # weight-standardised convolutions
    "regnet": "regnetx_002",
    "vision_transformer": "test_vit",
}


@pytest.mark.parametrize(("family", "network"), SAMPLE.items())
def test_a_family_is_quantized(family, network):
    names = families()
    if network not in names.get(family, ()):
        pytest.skip(f"this timm has no {network}")
    row = check(family, network)
    assert row.reason == ""
    assert row.layers > 10
