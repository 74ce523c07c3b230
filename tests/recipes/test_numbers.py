"""Options that are no numbers, or make no sense, are refused before anything is set up."""

import dataclasses
import math

import pytest

from zerosum.runs import recipe


def floats():
    for name in recipe.installed():
        config = recipe.load(name).config
        for field in dataclasses.fields(config):
            default = field.default
            if isinstance(default, float) or field.type in ("float | None", float | None):
                yield name, field.name, math.nan
            if isinstance(default, tuple) and default and isinstance(default[0], float):
                yield name, field.name, (math.nan, *default[1:])


@pytest.mark.parametrize(("name", "option", "value"), list(floats()))
def test_nan_is_refused_for_every_option_of_every_recipe(name, option, value):
    flag = f"--{option.replace('_', '-')} "
    with pytest.raises(ValueError, match=f"^{flag}"):
        recipe.load(name).config(**{option: value}).check()


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("lr", -1.0), ("max_shift", -1)])
def test_training_the_embedded_network_refuses_what_makes_no_sense(option, value):
    with pytest.raises(ValueError, match=f"{value}: expected a finite number"):
        recipe.load("digits_teacher").config(**{option: value}).check()
