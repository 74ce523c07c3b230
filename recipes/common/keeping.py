"""What is measured, drawn and kept of a pair while it plays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from zerosum import BalanceGap, Criterion, Dynamics, Game, Match, players
from zerosum.players.blocks import BLOCKS
from zerosum.randomness import kept_random_state, seed_all
from zerosum.recipes.common.effort import seconds_of
from zerosum.recipes.common.held_out import DIVERGENCE
from zerosum.recipes.common.pair import examination_of
from zerosum.recipes.common.scene import Scene
from zerosum.runs import Experiment, Outcome, Stage

_PICTURES = 30
_PROBE = 128  # images on which the Balance Gap is read
_WINDOW = 5
_OTHERS = 1_000_000  # above the seed of the run
_AHEAD = ("samples run ahead of the quantized network", "the quantized network runs ahead of the samples")


class Keeping:
    """Stages of a scene, and their outcome: the quantized network, its accuracy beside P's, its layers."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.config = scene, scene.config
        self.examination = examination_of(scene.pair, self.config)
        held_out = scene.held_out.measure if scene.held_out is not None else None
        self._measures = [measure for measure in (self.examination, held_out) if measure is not None]
        self._shown = scene.source.shown(_PICTURES, self.config.seed)

    def experiment(self, game: Game[Any], rule: Dynamics | None = None) -> Experiment:
        """Of one match, by the rule that is asked for or another; says beforehand what there is to do and how long it
        may take."""
        plan = self._plan(game) if self.scene.reconstruction is not None else None
        gap = self._gap(game)
        stage = self._stage(game, self.scene.rounds, self.scene.dynamics(rule, gap), gap)
        return Experiment.of(stage, self.finish, plan)

    def _plan(self, game: Game[Any]) -> str:
        plan, answers, batch_size = self.scene.plan, self.scene.answers, self.config.batch_size
        alone, both = (seconds_of(game, movers) for movers in (game.players[:1], game.players))
        # A step of every block costs about what one of the network does; recording, four times running the networks.
        answering = (plan.block_steps + 2 * plan.pool / batch_size) * (both - alone if len(game.players) > 1 else both)
        seconds = plan.warmup * alone + len(answers) * answering + (plan.rounds - plan.warmup) * both
        again = f", which answer {len(answers)} times" if len(answers) > 1 else ""
        return (
            f"plan: {plan.warmup} rounds of the generator, {len(answers[0])} blocks of {plan.block_steps} steps on "
            f"{plan.pool} images{again}, {plan.rounds - plan.warmup} rounds of the game; some {_duration(seconds)} "
            "here and now, measuring not counted"
        )

    def stage(self, game: Game[Any], rounds: int, dynamics: Dynamics | None = None) -> Stage:
        """A match of such a game, by the rule that is asked for or another, with the Balance Gap where two contest a
        payoff."""
        gap = self._gap(game)
        return self._stage(game, rounds, dynamics or self.scene.dynamics(guide=gap), gap)

    def _gap(self, game: Game[Any]) -> BalanceGap | None:
        if len(game.players) < 2 or game.payoff is None:
            return None
        config = self.config
        probes = [game.sample()]
        with kept_random_state():  # the game's course does not depend on how many more there are
            seed_all(config.seed + _OTHERS)  # or they would be the batches of its first rounds
            probes += [game.sample() for _ in range(1, -(-_PROBE // config.batch_size))]
        return BalanceGap(*probes, every=config.gap_every, tolerance=config.gap_tolerance, window=_WINDOW, ahead=_AHEAD)

    def _stage(self, game: Game[Any], rounds: int, dynamics: Dynamics, criterion: Criterion | None) -> Stage:
        config = self.config
        match = Match(
            game,
            dynamics,
            rounds,
            criterion=criterion,
            stop_when_stationary=config.stop_when_stationary and criterion is not None,
            measure=self._measure if self._measures and self._student(game) is not None else None,
            measure_every=config.measure_every or max(1, -(-rounds // self.scene.plan.measurements)),  # the end counts
            watchers=self.scene.watchers,
        )

        def draw(path: Path) -> None:
            with game.undisturbed():
                images = self.scene.source.images(self._shown)
                seen = self.scene.pair.teacher(images).argmax(dim=1)
            labels = self.scene.source.labels(self._shown)
            labels = labels.argmax(dim=1) if labels.ndim == 2 else labels
            players.draw_samples(path, images, labels, seen, self.scene.pair.space)

        return Stage(match, draw, best_by="top1")

    def _measure(self) -> dict[str, float]:
        return {name: value for measure in self._measures for name, value in measure().items()}

    def _stages(self, match: Match) -> dict[str, dict[str, float]]:
        """What was measured of the student when it came in, when its blocks were reconstructed, and as it is kept."""
        scene, entry = self.scene, match.entered.get(str(self._student(match.game)), match.round)

        def until(round: int) -> dict[str, float]:
            return next((figures for played, figures in reversed(match.measured) if played <= round), {})

        stages = {"before": until(entry)}
        if scene.reconstruction is not None:
            stages["reconstructed"] = until(scene.answers[0].stop)
        restored = scene.held_out is not None and scene.held_out.restore()
        return stages | {"after": self._measure() if restored else until(match.round)}

    def finish(self, matches: Mapping[str, Match], folder: Path) -> Outcome:
        """Of the matches that were played, the last in which the student moved counts; where it was broken off before
        any, the student is rounded, with ranges of what images there are."""
        pair, scheme = self.scene.pair, self.scene.pair.scheme
        played = [match for match in matches.values() if self._student(match.game) is not None]
        match = (played or [*matches.values()])[-1]
        if played:
            stages = self._stages(match)
        else:
            self.scene.calibrate()
            stages = dict.fromkeys(("before", "after"), self._measure())
        path, names = folder / players.QUANTIZED, players.label_names(pair.teacher)
        players.save_quantized(path, pair.student, pair.architecture, pair.space, scheme, names)
        with match.game.undisturbed():
            images = self.scene.source.images(self._shown)
            blocks = self.scene.reconstruction.blocks if self.scene.reconstruction is not None else []
            of = {layer: block.name for block in blocks for layer in block.layers}
            layers = players.describe_layers(pair.teacher, pair.student, images, scheme, of)
        layers.write(folder / "layers.csv")
        if self.scene.reconstruction is not None:
            self.scene.reconstruction.write(folder / BLOCKS)
        if self.examination is not None:
            self.examination.write_classes(folder / players.CLASSES)
        figures, table = players.report(self.examination, stages)
        gap = match.verdict.figures.get("balance_gap_mean") if match.verdict is not None else None
        sizes = {"float_bytes": layers.float_size, "quantized_bytes": layers.size}
        plan = {"plan": self.scene.plan._asdict()}
        found = figures | {DIVERGENCE: stages["after"].get(DIVERGENCE), "balance_gap": gap} | sizes | plan
        return Outcome(found, Group(layers.draw(), table), "quantized-network")

    def _student(self, game: Game[Any]) -> str | None:
        named = [player.name for player in game.players if player.module is self.scene.pair.student]
        return named[0] if named else None


def _duration(seconds: float) -> str:
    """To ten seconds, or from two minutes on to one minute."""
    return f"{max(1, round(seconds / 10))}0 s" if seconds < 120 else f"{round(seconds / 60)} min"
