"""How grids are laid, by name."""

from dataclasses import dataclass
from typing import Literal

from zerosum.players.quantization.ranges import ActivationRange, WeightRange

Symmetry = Literal["asymmetric", "symmetric"]
Granularity = Literal["per-channel", "per-tensor"]
Sums = Literal["float", "quantized"]


@dataclass(frozen=True)
class Scheme:
    """How grids are laid. Activations are always quantized per tensor, as integer kernels need them.

    Ranges, by name: ``minmax`` (of a weight as it is now; of all batches that were observed), ``pairwise`` (of a weight
    on a symmetric grid: minmax, widened for what x86 kernels without VNNI can add), ``ema`` (moving average of batch
    minima and maxima, momentum 0.9, corrected for its start from zero), ``percentile`` (the central 99.9 %), ``mse``
    (least squared error), ``lsq`` (from mse on, the scale is learned; Esser et al., ICLR 2020), and ``auto``, which is
    lsq of 4 bits or fewer and mse of more, layer by layer. Percentile and mse of activations are moving averages over
    batches too; of weights, they are taken when the network is quantized.

    With quantized ``sums``, additions and average pooling take 8-bit values too
    (:mod:`zerosum.players.quantization.sums`). Together with symmetric weights, that is what integer kernels run from
    one end of the network to the other.
    """

    weight_range: WeightRange = "auto"
    """How far the levels of a weight reach: over all of it, as far and as neighbours' sums (for 8-bit kernels of x86
    CPUs without VNNI), the central 99.9 %, for least squared error, or from there on with what is learned: the scale
    (lsq), or whether a weight goes down or up (adaround). auto: lsq of 4 bits or fewer, mse of more."""
    weight_grid: Symmetry = "asymmetric"
    """Whether zero is the middle level of a weight (symmetric)."""
    weight_granularity: Granularity = "per-channel"
    """One grid for each output channel of a weight, or one for all."""
    activation_range: ActivationRange = "auto"
    """How far those of activations reach; ema is the moving average of batch minima and maxima. auto: lsq of 4
    bits or fewer, mse of more."""
    activation_grid: Symmetry = "asymmetric"
    """Whether zero is the middle level of activations (symmetric)."""
    sums: Sums = "float"
    """Whether additions (residual connections) and average pooling take 8-bit values too. With --weight-grid symmetric
    and bits such as w8a8, --sums quantized is the scheme that integer kernels run from end to end."""
    logits: Sums = "float"
    """Whether what the last layer gives is rounded to 8 bits too, as runtimes of phones want it."""

    def __post_init__(self) -> None:
        if self.weight_range == "pairwise" and self.weight_grid != "symmetric":
            raise ValueError("weight range pairwise: expected the symmetric weight grid, for which it is made")

    def __str__(self) -> str:
        weights = f"weights {self.weight_grid} {self.weight_granularity} {self.weight_range}"
        too = "".join(f", {name} too" for name in ("sums", "logits") if getattr(self, name) == "quantized")
        return f"{weights}, activations {self.activation_grid} per-tensor {self.activation_range}{too}"
