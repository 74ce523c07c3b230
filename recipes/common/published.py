"""What runs of other methods may be asked for besides, and what they may not."""

from dataclasses import dataclass

from torch import nn

from zerosum.players.backbones import InputSpace
from zerosum.recipes.common.effort import Plan
from zerosum.recipes.common.options import DataFreeOptions


@dataclass(frozen=True, kw_only=True)
class AsPublished(DataFreeOptions):
    """What methods have that reconstruct no blocks."""

    block_steps: int | None = 0
    """Steps of each block's reconstruction, when the quantized network comes in; 0, as published, leaves it out, and
    the last state is kept. With it, that which is nearest to full precision on images put aside."""


@dataclass(frozen=True, kw_only=True)
class ImagesFirst(DataFreeOptions):
    """What methods have that make all images before Q learns from them."""

    pool: int | None = None
    """Images that are made. Default: by the effort. Published: 1,024 to 5,120."""
    synthesis_rounds: int = 500
    """Rounds in which images are optimized, those that are made at a time; 0 leaves them noise. Published: 500 to 1,000
    for pixels, 4,000 for latents."""
    synthesis_images: int = 128
    """Pixels or latents that are optimized at a time, each time from a fresh start. Published: 64 to 256, and 128."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "synthesis_rounds")
        self.check_at_least(1, "synthesis_images")
        self.refuse("there is no game here; all images are made before Q learns", "warmup", "renewals", "leaves")
        self.refuse_contest()

    def plan(self, network: nn.Module, space: InputSpace) -> Plan:
        return super().plan(network, space)._replace(warmup=0, renewals=0)


@dataclass(frozen=True, kw_only=True)
class AnsweringOnImages(ImagesFirst):
    """What those have in which Q then answers, and takes no step."""

    def check(self) -> None:
        self.refuse("there is no game here, in which Q would take steps", "quantized_lr", "dynamics", "adjustment")
        super().check()


@dataclass(frozen=True, kw_only=True)
class LearningFromPool(AsPublished, ImagesFirst):
    """What those have in which Q then learns from these images, all of it at once."""

    synthesis_rounds: int = 200
    """Rounds in which images are optimized, those that are made at a time; 0 leaves them noise. Published: 1,000."""
    block_steps: int | None = 0
    """Steps of each block's reconstruction on the images, before Q learns from them; 0, as published, leaves it out."""
    rounds: int | None = None
    """Rounds in which Q learns, a step in each. Published: 20,000 to 30,000. Default: by the effort and the network's
    size."""
    crop: float = 0.5
    """Least share of an image that Q sees of it: a random part in each round, enlarged, and flipped or not; in IntraQ P
    sees such parts too, of every other image, while these are made. 1 shows whole images as they are."""

    def check(self) -> None:
        super().check()
        if not 0 < self.crop <= 1:
            raise ValueError(f"--crop {self.crop}: expected a share above 0, up to 1")
