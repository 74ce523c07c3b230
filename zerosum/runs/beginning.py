"""A recipe's experiment, as every run begins it."""

from typing import Any

from zerosum.randomness import seed_all
from zerosum.runs.experiment import Experiment, Stage
from zerosum.runs.options import Options, encode
from zerosum.runs.recipe import Recipe
from zerosum.runs.watchers.tensorboard import summary_writer


def begin(recipe: Recipe, options: Options, *given: Any) -> tuple[Experiment, Stage]:
    """What a recipe makes of its options, and of what it is given besides, from the options' seed on; and the first
    stage of that. Everything that bad input can break, before anything is written.

    Raises:
        ValueError, OSError: options that make no sense, or input that cannot be worked with.
    """
    options.check()
    if options.tensorboard:
        summary_writer()
    encode(options)
    seed_all(options.seed)
    experiment = recipe.make(options, *given)
    return experiment, experiment.begin(next(iter(experiment.stages)), {}, options.seed)
