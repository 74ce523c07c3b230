"""What those say who start several processes together."""

from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """Of a process: which rank it is, of how many, and which of those on its machine."""

    rank: int
    ranks: int
    local: int


def place_of(environment: Mapping[str, str]) -> Place:
    """What torchrun's variables say, or SLURM's (of a step, by srun), where MASTER_ADDR and MASTER_PORT are set too.

    Raises:
        ValueError: SLURM started several, and the two are not set.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        local = environment.get("LOCAL_RANK", "0")
        return Place(int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(local))
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1:
        return Place(0, 1, 0)
    if not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise ValueError(
            f"SLURM started {tasks} tasks: for one game of {tasks} ranks, set MASTER_ADDR (the first node's name) and "
            "MASTER_PORT (a free port); for separate runs, start each by a step of its own (srun --ntasks 1)"
        )
    return Place(int(environment["SLURM_PROCID"]), tasks, int(environment.get("SLURM_LOCALID", 0)))
