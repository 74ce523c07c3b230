import pytest
import torch

from zerosum.runs import Options
from zerosum.runs.recipe import installed, load
from zerosum.runs.run import main

SCALARS = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD

from zerosum import Game, Match, Player, Simultaneous
from zerosum.runs import Options


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A game of two scalars."""

    lr: float = 0.1
    """Step size of both."""


def recipe(config: Config) -> Match:
    x, y = (nn.Linear(1, 1, bias=False) for _ in range(2))
    return Match(
        Game(
            players=(
                Player("x", x, SGD(x.parameters(), config.lr), "maximize"),
                Player("y", y, SGD(y.parameters(), config.lr), "minimize"),
            ),
            play=lambda _: (x.weight, y.weight),
            payoff=lambda play: (play[0] * play[1]).sum(),
        ),
        Simultaneous(),
        config.rounds,
    )
'''


def test_a_recipe_outside_the_package_runs_by_its_path(tmp_path, capsys):
    path = tmp_path / "scalars.py"
    path.write_text(SCALARS)
    assert load(str(path)).name == "scalars"
    assert main([str(path), "--rounds", "5", "--lr", "0.5", "--out", str(tmp_path / "run")]) == 0
    assert "5 rounds" in capsys.readouterr().out
    assert {"summary.json", "game.png"} <= {p.name for p in (tmp_path / "run").iterdir()}
    with pytest.raises(SystemExit) as ended:  # rounds has no default in this recipe
        main([str(path), "--out", str(tmp_path / "other")])
    assert ended.value.code == 2


def test_installed_recipes_are_known_by_name():
    assert {"adasg", "digits_teacher"} <= set(installed())
    assert "common" not in installed()
    for name in installed():
        assert issubclass(load(name).config, Options)


def test_the_device_is_this_machines():
    assert Options(rounds=1, device="cpu").torch_device == torch.device("cpu")
    assert Options(rounds=1).torch_device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device cuda: PyTorch finds no CUDA device here"):
            Options(rounds=1, device="cuda").torch_device  # noqa: B018
