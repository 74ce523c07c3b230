"""How sharp a reading of the Balance Gap is, and what it costs: ``python -m benchmarks.balance_gap`` (two minutes).

The default network in play without blocks; from round 600 on, when the payoff has come down, every gap is read on 64
batches of probes at once, for single rounds and for stretches. Groups of these batches are probes of any size: of the
same two states of the game, gaps scatter by the probe (across); of one probe, from reading to reading (along).
"""

import time

import torch

from zerosum import BalanceGap, Match, Watcher
from zerosum.randomness import kept_random_state, seed_all
from zerosum.recipes import adasg
from zerosum.recipes.common.data_free import Keeping, scene_of

ROUNDS, SETTLED, BATCHES = 1000, 600, 64


class Payoffs(Watcher):
    """The payoff on each batch, after every tenth round and the one that follows it."""

    def __init__(self, criterion: BalanceGap) -> None:
        self.read: dict[int, list[float]] = {}
        self.criterion, self.seconds = criterion, 0.0

    def on_round(self, match: Match, record: object) -> None:
        if match.round < SETTLED or match.round % 10 > 1:
            return
        started = time.process_time()
        with kept_random_state(), match.game.undisturbed():
            plays = [match.game.play(probe) for probe in self.criterion.probes]
            self.read[match.round] = [match.game.payoff_of(play).item() for play in plays]
        self.seconds += time.process_time() - started


def main() -> None:
    """Print the scatter of gaps, and what a batch of a reading costs beside a round."""
    config = adasg.Config(block_steps=0, rounds=ROUNDS)
    seed_all(config.seed)
    scene = scene_of(config, None)
    game = adasg.make_game(scene, config)
    with kept_random_state():
        torch.manual_seed(1)
        payoffs = Payoffs(BalanceGap(*(game.sample() for _ in range(BATCHES))))
    match = Match(game, scene.dynamics(), ROUNDS, watchers=[payoffs])
    started = time.process_time()
    match.play()
    a_round = (time.process_time() - started - payoffs.seconds) / ROUNDS
    a_batch = payoffs.seconds / len(payoffs.read) / BATCHES

    print("| rounds | images | across probes | along play |\n|---|---|---|---|")
    for stretch in (1, 50, 100):
        ends = [(r, r + stretch) for r in payoffs.read if r % 10 == 0 and r + stretch in payoffs.read]
        changes = torch.tensor([payoffs.read[end] for _, end in ends]) - torch.tensor(
            [payoffs.read[r] for r, _ in ends]
        )
        for batches in (1, 4, 8, 16, 32):
            gaps = changes.unflatten(1, (-1, batches)).mean(dim=2)  # readings × probes
            sizes = f"| {stretch} | {batches * config.batch_size} "
            print(f"{sizes}| {gaps.var(dim=1).mean().sqrt():.3f} | {gaps.var(dim=0).mean().sqrt():.3f} |")

    used = Keeping(scene).stage(game, ROUNDS).match.criterion
    cost = 2 * len(used.probes) * a_batch / (config.gap_every * a_round)
    print(f"\nA round takes {1e3 * a_round:.1f} ms, a batch of a reading {1e3 * a_batch:.1f} ms. Reading each of")
    print(f"{len(used.probes)} batches twice, every {config.gap_every} rounds, is {cost:.1%} of the play.")


if __name__ == "__main__":
    main()
