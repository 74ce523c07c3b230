"""What every game of data-free quantization has, for a recipe to import: it adds what the two players want."""

from zerosum.recipes.common.keeping import Keeping
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair, pair_of
from zerosum.recipes.common.play import Play
from zerosum.recipes.common.prior import NoPrior, Prior, prior_of
from zerosum.recipes.common.published import AnsweringOnImages, AsPublished, ImagesFirst, LearningFromPool
from zerosum.recipes.common.scene import Scene
from zerosum.recipes.common.source import Generated, Source, Superposed, generated
from zerosum.recipes.common.subject import Subject

__all__ = [
    "AnsweringOnImages",
    "AsPublished",
    "DataFreeOptions",
    "Generated",
    "ImagesFirst",
    "Keeping",
    "LearningFromPool",
    "NoPrior",
    "Pair",
    "Play",
    "Prior",
    "Scene",
    "Source",
    "Subject",
    "Superposed",
    "generated",
    "pair_of",
    "prior_of",
    "scene_of",
]


def scene_of(config: DataFreeOptions, subject: Subject | None = None) -> Scene:
    """The pair that is asked for, or that of a network which is handed in, and a generator that makes images for it.

    Raises:
        ValueError, OSError: input that cannot be worked with (see :mod:`zerosum.players`).
    """
    pair = pair_of(config, subject)
    return Scene(pair, generated(pair, config), prior_of(pair.teacher), config)
