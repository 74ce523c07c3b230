"""The journal's figures and the pictures, for TensorBoard."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerosum.match import Match, Record, Watcher
from zerosum.runs.messages import attempt
from zerosum.runs.watchers.pictures import drawn


def summary_writer() -> Any:
    """PyTorch's class that writes event files.

    Raises:
        ValueError: the package tensorboard is missing; the message has its install line.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the package tensorboard; pip install 'zerosum[tensorboard]'") from error
    return SummaryWriter


class TensorBoard(Watcher):
    """Writes event files into ``tensorboard/``. A match that goes on from an earlier round hides what came after it.

    Tensors are read ``every`` rounds at a time, as the journal does. A picture that cannot be read is left out.

    Attributes:
        failed: what is said of those.

    Raises:
        ValueError: as :func:`summary_writer`.
    """

    def __init__(self, folder: Path, every: int = 50) -> None:
        self.folder, self.every = folder, every
        self._make_writer = summary_writer()
        self._writer: Any = None
        self._pending: list[Record] = []
        self.failed: list[str] = []

    def on_start(self, match: Match) -> None:
        self._pending.clear()
        self._writer = self._make_writer(str(self.folder / "tensorboard"), purge_step=match.round + 1)
        self._shown = {round for round in drawn(self.folder) if 0 < round <= match.round}
        if match.round == 0 and match.measured:
            for name, value in match.measured[-1][1].items():
                self._writer.add_scalar(f"measured/{name}", value, 0)

    def on_round(self, match: Match, record: Record) -> None:
        self._pending.append(record)
        if len(self._pending) >= self.every:
            self._write()

    def on_end(self, match: Match) -> None:
        if self._writer is not None:
            self._write()
            self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        return {"failed": list(self.failed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.failed = list(state.get("failed", ()))

    def _write(self) -> None:
        for record in self._pending:
            stake = record.result.stake
            figures = {} if stake is None else {"payoff": stake}
            for player, terms in record.result.losses.items():
                figures |= {f"{player}/{term}": value.item() for term, value in terms.items()}
            figures |= {f"step size/{player}": size for player, size in record.step_sizes.items()}
            figures |= {
                f"criterion/{name}": x for name, x in (record.verdict.figures if record.verdict else {}).items()
            }
            figures |= {f"measured/{name}": value for name, value in (record.measured or {}).items()}
            for name, value in figures.items():
                self._writer.add_scalar(name, value, record.round)
        self._pending.clear()
        for round, path in drawn(self.folder).items():
            if round not in self._shown:
                attempt(f"the picture {path.name} in TensorBoard", partial(self._show, round, path), self.failed)
                self._shown.add(round)

    def _show(self, round: int, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image("players", pixels, round, dataformats="HWC")
