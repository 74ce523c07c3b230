"""Options come back from config.json as they were."""

import dataclasses
import enum
import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerosum.runs import Options
from zerosum.runs.options import _same, decode, encode
from zerosum.runs.run_folder import write_json


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Grid:
    step: float = 0.5
    file: Path | None = None


@dataclasses.dataclass(frozen=True)
class Level:
    step: float
    levels: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    rounds: int = 1
    number: float = 0.0
    path: Path = Path("a")
    either: Path | str = Path("a")
    maybe: Path | None = None
    pair: tuple[float, str] = (0.0, "")
    many: tuple[float, ...] = ()
    items: list[int] = dataclasses.field(default_factory=list)
    named: dict[str, Path] = dataclasses.field(default_factory=dict)
    chosen: frozenset[int] = frozenset()
    colour: Colour = Colour.RED
    kind: Literal["auto", 1, None] = "auto"
    count: int | float | bool = 0
    step: float | Literal["auto"] = "auto"
    raw: bytes = b""
    grid: Grid = Grid()
    part: Grid | Level | None = None
    text: str | None = None


PATHS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).map(Path)
GRIDS = st.builds(Grid, st.floats(), st.none() | PATHS)
VALUES = {
    "rounds": st.integers(),
    "number": st.floats(),
    "path": PATHS | st.just(Path("/data/\udcff")),
    "either": PATHS,
    "maybe": st.none() | PATHS,
    "pair": st.tuples(st.floats(), st.text()),
    "many": st.lists(st.floats()).map(tuple),
    "items": st.lists(st.integers()),
    "named": st.dictionaries(st.text(), PATHS),
    "chosen": st.frozensets(st.integers()),
    "colour": st.sampled_from(Colour),
    "kind": st.sampled_from(["auto", 1, None]),
    "count": st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
    "step": st.just("auto") | st.floats(),
    "raw": st.binary(),
    "grid": GRIDS,
    "part": st.none() | GRIDS | st.builds(Level, st.floats(), st.lists(st.integers()).map(tuple)),
    "text": st.none() | st.text() | st.just("\udcff"),
    "seed": st.integers(),
    "step_scale": st.none() | st.floats(),
}


@given(st.fixed_dictionaries(VALUES))
def test_options_come_back_as_they_were(tmp_path_factory, values):
    options = Config(**values)
    path = tmp_path_factory.mktemp("run") / "config.json"
    write_json(path, {"options": encode(options)})
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["options"]
    found = decode(Config, kept)
    assert _same(found, options), {n: (getattr(found, n), v) for n, v in values.items() if getattr(found, n) != v}


def test_equal_is_of_the_same_type():
    assert _same((math.nan, {"a": [1]}), (math.nan, {"a": [1]}))
    for one, other in ((1, 1.0), (True, 1), ((1,), [1]), ({1}, {True}), (Grid(1), Grid(1.0)), (Path("a"), "a")):
        assert not _same(one, other)


def config_with(kind, value):
    return dataclasses.make_dataclass("C", [("rounds", int, 1), ("odd", kind, value)], bases=(Options,), frozen=True)


class Pairs(enum.Enum):
    ONE = (1, 2)


@pytest.mark.parametrize(
    ("kind", "value"), [(torch.dtype, torch.float32), (object, Path("a")), (Pairs, Pairs.ONE), (Grid | None, object())]
)
def test_what_does_not_come_back_is_refused_by_name(kind, value):
    config = config_with(kind, value)
    with pytest.raises(ValueError, match=r"--odd .* does not come back from config\.json"):
        encode(config())


def test_what_is_no_value_of_its_type_is_named():
    with pytest.raises(ValueError, match="--step-scale: 'x' is no float"):
        decode(Config, {"step_scale": "x"})
