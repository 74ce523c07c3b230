"""Images first, and then what is played on them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import SGD

from zerosum import Game, Match, Player, Responding
from zerosum.recipes.common.keeping import Keeping
from zerosum.recipes.common.pool import PoolScene
from zerosum.recipes.common.synthesis import Way
from zerosum.runs import Experiment, Stage


def images_first(
    scene: PoolScene, name: str, game: Callable[[], Game[Any]], way: Way | None = None, at_once: int | None = None
) -> Experiment:
    """Two matches: in each round of the first, so many of the scene's images are made and put into their places; the
    second, of this name, is that of a game which is made when they are there.

    Args:
        way: makes them; None leaves those that are there as they are, and the first match out.
        at_once: images a round; default: all.
    """
    keeping, pixels = Keeping(scene), scene.pixels
    count = len(pixels.values)
    each = min(count, at_once or count)

    def images(played: Mapping[str, Match]) -> Stage:
        player = Player("images", pixels, SGD([pixels.values], 0.0), "maximize", terms=scene.natural(1.0))

        def fill(game: Game[Any], player: Player) -> None:
            place = game.round * each
            assert way is not None
            pixels.put(place, way(min(each, count - place)))

        made = Game((player,), scene.play, sample=scene.source.sample)
        return keeping.stage(made, -(-count // each), Responding(fill, "maximize"))

    def rest(played: Mapping[str, Match]) -> Stage:
        pixels.requires_grad_(False)
        return keeping.stage(game(), scene.rounds)

    return Experiment({**({"images": images} if way is not None else {}), name: rest}, keeping.finish)
