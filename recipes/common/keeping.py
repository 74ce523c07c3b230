"""What is measured, drawn and kept of a pair while it plays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from zerosum import BalanceGap, Game, Match, make_dynamics, players
from zerosum.recipes.common.pair import examination_of
from zerosum.recipes.common.scene import Scene
from zerosum.runs import Experiment, Outcome, Stage

_PICTURES = 30
_AHEAD = ("samples run ahead of the quantized network", "the quantized network runs ahead of the samples")


class Keeping:
    """Stages of a scene, and their outcome: the quantized network, its accuracy beside P's, its layers."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.config = scene, scene.config
        self.examination = examination_of(scene.pair, self.config)
        self._shown = scene.source.shown(_PICTURES, self.config.seed)

    def experiment(self, game: Game[Any]) -> Experiment:
        """Of one match."""
        return Experiment.of(self.stage(game, self.config.rounds), self.finish)

    def stage(self, game: Game[Any], rounds: int) -> Stage:
        """A match of such a game, with the Balance Gap where two contest a payoff."""
        config, criterion = self.config, None
        if len(game.players) == 2 and game.payoff is not None:
            criterion = BalanceGap(game.sample(), config.gap_every, config.gap_tolerance, ahead=_AHEAD)
        match = Match(
            game,
            make_dynamics(config.dynamics, config.adjustment),
            rounds,
            criterion=criterion,
            stop_when_stationary=config.stop_when_stationary and criterion is not None,
            measure=self.examination if self._student(game) is not None else None,
            measure_every=config.measure_every or max(1, rounds // 8),
        )

        def draw(path: Path) -> None:
            with game.undisturbed():
                images = self.scene.source.images(self._shown)
                seen = self.scene.pair.teacher(images).argmax(dim=1)
            players.draw_samples(path, images, self.scene.source.labels(self._shown), seen, self.scene.pair.space)

        return Stage(match, draw, best_by="top1")

    def finish(self, matches: Mapping[str, Match], folder: Path) -> Outcome:
        """Of the matches that were played, the last in which the student moved counts."""
        pair, scheme = self.scene.pair, self.scene.pair.scheme
        match = [match for match in matches.values() if self._student(match.game) is not None][-1]
        players.save_quantized(folder / players.QUANTIZED, pair.student, self.config.backbone, scheme)
        with match.game.undisturbed():
            images = self.scene.source.images(self._shown)
            layers = players.describe_layers(pair.teacher, pair.student, images, scheme)
        layers.write(folder / "layers.csv")
        if self.examination is not None:
            self.examination.write_classes(folder / players.CLASSES)
        entry = match.entered[str(self._student(match.game))]
        figures, table = players.report(self.examination, match.measured, entry)
        gap = match.verdict.figures.get("balance_gap_mean") if match.verdict is not None else None
        sizes = {"float_bytes": layers.float_size, "quantized_bytes": layers.size}
        return Outcome(figures | {"balance_gap": gap} | sizes, Group(layers.draw(), table), "quantized-network")

    def _student(self, game: Game[Any]) -> str | None:
        named = [player.name for player in game.players if player.module is self.scene.pair.student]
        return named[0] if named else None
