"""Playing what a recipe made, in a folder: who watches, what is taken up again, what is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from zerosum import ranks
from zerosum.divergence import Diverged
from zerosum.match import Match, Watcher
from zerosum.replicas import differ_by
from zerosum.runs import checkpoints, run_folder
from zerosum.runs.curves import draw_game
from zerosum.runs.experiment import ALONE, Experiment, Stage
from zerosum.runs.files import whole_files
from zerosum.runs.interruption import finishing_the_round
from zerosum.runs.messages import attempt, fault, say
from zerosum.runs.options import Options
from zerosum.runs.watchers import Checkpoints, ConsoleWatcher, Journal, Pictures, TensorBoard
from zerosum.runs.watchers.journal import read as read_journal


class CannotResume(ValueError):
    """A checkpoint is damaged, or of another match."""


class Session:
    """An experiment, played in a folder. A stage that is alone has the folder itself, of several each has one in it.

    Args:
        watchers: told of every match, beside those that show and keep it.

    Attributes:
        matches: those that were begun, by name.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        options: Options,
        console: Console,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.experiment, self.folder, self.options, self.console = experiment, folder, options, console
        self.watchers = watchers
        self.matches: dict[str, Match] = {}
        self._failed: list[str] = []  # what a run can do without
        self._signals: list[int] = []  # that came in to end it
        self._ranks: dict[str, Any] = {}

    def play(self, first: Stage) -> bool:
        """Play to the end, and write into the folder what comes of it; False where it was interrupted.

        Matches that have a checkpoint go on from it.

        Args:
            first: the first stage, as :meth:`Experiment.begin` made it.

        Raises:
            CannotResume: a match cannot go on from its checkpoints.
            Diverged: a match did; of several side by side, after all that is to be written is.
            OSError: the folder cannot be written.
        """
        if self.experiment.plan is not None:
            self.console.print(self.experiment.plan, soft_wrap=True)
        diverged = None
        for name in self.experiment.stages:
            if ranks.any_of(bool(self._signals)):  # in the last round of the stage before
                self.console.print(f"interrupted before {name}; go on with")
                return False
            stage = self.experiment.begin(name, self.matches, self.options.seed) if self.matches else first
            self.matches[name] = stage.match
            if name:
                (self.folder / name).mkdir(exist_ok=True)
                self.console.rule(name)
            try:
                if not self._play_stage(stage, self.folder / name):
                    return False
            except Diverged as error:
                if not self.experiment.side_by_side:
                    raise
                diverged = error
                self.console.print(f"{name}: {error}", style="red", soft_wrap=True)
        self._ranks = _ranks(self.matches)
        self.conclude()
        self.console.print(self._closing_line(), soft_wrap=True)
        if diverged is not None:
            raise diverged
        return True

    def conclude(self) -> None:
        """Write into the folder what comes of the matches as they stand.

        Raises:
            OSError: the folder cannot be written.
        """
        figures = self._finish()
        run_folder.write_json(self.folder / run_folder.SUMMARY, figures | self._account())

    def _finish(self) -> dict[str, Any]:
        """The figures of what the recipe leaves behind. Where that fails, the summary has what there is to say without,
        and the run is to be finished by another try."""
        if self.experiment.finish is None:
            return {}
        try:
            with whole_files(self.folder) as aside:
                for name in filter(None, self.matches):
                    (aside / name).mkdir()
                outcome = self.experiment.finish(self.matches, aside)
        except Exception as error:
            unfinished = {run_folder.UNFINISHED: fault(error)}
            run_folder.write_json(self.folder / run_folder.SUMMARY, self._account() | unfinished)
            raise
        attempt("the table of results", lambda: self.console.print(outcome.table), self._failed)
        return outcome.figures | {"result": outcome.result}

    def _play_stage(self, stage: Stage, folder: Path) -> bool:
        match, options = stage.match, self.options
        journal = Journal(folder / run_folder.METRICS)
        pictures = [Pictures(folder, stage.draw)] if stage.draw is not None else []
        keeper = Checkpoints(folder, journal, options.checkpoint_every, options.checkpoints, stage.best_by)
        board = [TensorBoard(folder)] if options.tensorboard else []
        shown: list[Pictures | TensorBoard] = []
        if ranks.index() == 0:  # who alone shows and keeps
            shown += [*pictures, *board]
            match.watchers = [
                *match.watchers,
                ConsoleWatcher(self.console),
                journal,
                *pictures,
                keeper,
                *board,
                *self.watchers,
            ]
        _restore(match, folder, self.console)
        if options.step_scale is not None:
            for player in match.game.players:
                player.step_scale = options.step_scale

        def draw() -> None:
            if ranks.index() > 0:
                return
            with whole_files(folder) as aside:
                draw_game(read_journal(journal.path), aside / run_folder.GAME)

        try:
            with finishing_the_round(match, self._signals):
                _play_or_rewind(match, keeper, options, self.console)
        except Diverged:
            attempt("the picture of the game", draw, self._failed)
            raise
        self._failed += [what for watcher in shown for what in watcher.failed]
        if match.over:
            attempt("the picture of the game", draw, self._failed)
        else:
            self.console.print(f"interrupted after round {match.round} of {match.rounds}; go on with")
        return match.over

    def _account(self) -> dict[str, Any]:
        """What there is to say of any experiment, and which pictures and tables could not be made."""
        accounts = {name: _account(match) for name, match in self.matches.items()}
        said = accounts.get(ALONE, {"matches": accounts})
        return said | self._ranks | ({"failed": self._failed} if self._failed else {})

    def _closing_line(self) -> str:
        matches, seconds = list(self.matches.values()), sum(match.seconds for match in self.matches.values())
        if len(matches) > 1:
            return f"{len(matches)} matches in {seconds:.0f} s"
        verdict = matches[0].verdict
        return f"{matches[0].round} rounds in {seconds:.0f} s" + (f"; {verdict.reason}" if verdict else "")


def _ranks(matches: Mapping[str, Match]) -> dict[str, Any]:
    """Of several, how many there were, and how far their players are from each other."""
    if ranks.count() == 1:
        return {}
    players = [player for match in matches.values() for player in match.game.players]
    return {"ranks": ranks.count(), "ranks_differ_by": differ_by(players)}


def _restore(match: Match, folder: Path, console: Console) -> None:
    try:
        state, damaged = ranks.from_first(lambda: checkpoints.load_newest(folder))
        if state is None:
            return  # stopped before its first checkpoint: from the start
        match.load_state_dict(state)
    except checkpoints.Damaged as error:
        raise CannotResume(str(error)) from error
    except (ranks.Lost, ranks.Told):
        raise
    except Exception as error:  # of any type: another recipe's state, or one from before it was edited
        raise CannotResume(f"{folder}: the checkpoint does not fit the recipe ({fault(error)})") from error
    for found in damaged:
        console.print(f"{found}; going on from the one before, of round {match.round}", style="red", soft_wrap=True)


def _play_or_rewind(match: Match, keeper: Checkpoints, options: Options, console: Console) -> None:
    while True:
        try:
            return match.play()
        except Diverged as error:
            if options.on_divergence == "stop" or match.rewinds >= options.max_rewinds:
                raise
            try:
                state = ranks.from_first(lambda: keeper.rewind(match))
            except checkpoints.Damaged as damaged:
                say(f"cannot go back: {damaged}")
                raise error from damaged
            if ranks.index() > 0:
                match.load_state_dict(state)
            scales = ", ".join(f"{player.name} × {player.step_scale:g}" for player in match.game.players)
            what = f"{error}; back to round {match.round}, rewind {match.rewinds} of {options.max_rewinds}"
            console.print(f"{what}; step sizes: {scales}", soft_wrap=True)


def _account(match: Match) -> dict[str, Any]:
    """What there is to say of any match."""
    verdict = match.verdict
    return {
        "rounds": match.round,
        "seconds": round(match.seconds, 1),
        "rewinds": match.rewinds,
        "stationary": verdict.stationary if verdict else None,
        "reason": verdict.reason if verdict else None,
    }
