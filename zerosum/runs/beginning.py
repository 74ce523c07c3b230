"""A recipe's experiment, as every run begins it."""

from typing import Any, NamedTuple

from rich.console import Console

from zerosum.randomness import seed_all
from zerosum.runs.experiment import Experiment, Stage
from zerosum.runs.options import Options, encode
from zerosum.runs.recipe import Recipe
from zerosum.runs.watchers.tensorboard import summary_writer


class Beginning(NamedTuple):
    """An experiment, its first stage, and the options that it was made of, settled."""

    experiment: Experiment
    first: Stage
    options: Options


def begin(recipe: Recipe, options: Options, console: Console, *given: Any) -> Beginning:
    """What a recipe makes of its options, and of what it is given besides, from the options' seed on. Everything that
    bad input can break, before anything is written. What is decided here is said on the ``console``.

    Raises:
        ValueError, OSError: options that make no sense, or input that cannot be worked with.
    """
    options.check()
    if options.tensorboard:
        summary_writer()
    encode(options)
    options = options.settled(console, *given)
    seed_all(options.seed)
    experiment = recipe.make(options, *given)
    return Beginning(experiment, experiment.begin(next(iter(experiment.stages)), {}, options.seed), options)
