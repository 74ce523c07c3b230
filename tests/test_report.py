"""``python -m zerosum.report`` in a real browser, and ``python -m zerosum.compare``."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.browser import opened, requested
from zerosum import compare, report
from zerosum.runs.compare import read_groups, rows
from zerosum.runs.curves import marks, panels
from zerosum.runs.options import flat
from zerosum.runs.run import main as play

SHORT = ["adasg", "--rounds", "15", "--warmup", "5", "--gap-every", "5", "--calibration", "1", "--measure-every", "5"]
SHORT += ["--block-steps", "2", "--pool", "32", "--batch-size", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds, and one with other bits."""
    folder = tmp_path_factory.mktemp("runs")
    asked = {f"seed{seed}": ["--seed", str(seed)] for seed in range(3)} | {"w4": ["--bits", "w4a4"]}
    for name, options in asked.items():
        assert play([*SHORT, *options, "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_is_drawn_in_a_browser_and_fetches_nothing(runs, width, tmp_path):
    page = tmp_path / "alone" / "report.html"  # away from the run's files
    page.parent.mkdir()
    assert report.main([str(runs / "seed0"), "--out", str(page)]) == 0
    assert page.stat().st_size < 3e6
    with opened(page, width) as driver:
        assert requested(driver) == [page.resolve().as_uri()]
        look = "return [...document.images].map(i => [i.alt, i.complete, i.naturalWidth, i.width])"
        images = driver.execute_script(look)
        assert all(complete and natural > 100 for _, complete, natural, _ in images)
        assert all(100 < shown <= width for *_, shown in images)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        text = driver.execute_script("return document.body.innerText")
    captions = [alt for alt, *_ in images]
    assert captions == [
        *("Reconstruction by block", "Signal-to-noise by layer"),
        *("payoff", "change of payoff on the probe", "Balance Gap", "measured", "step size"),
        *("round 0", "round 10", "round 20"),
    ]
    summary = json.loads((runs / "seed0" / "summary.json").read_text())
    low, high = summary["intervals"]["after_top1"]
    assert f"{summary['after_top1']:.1f} ({low:.1f}–{high:.1f})" in text
    assert "Dotted lines: round 6, quantized network comes in." in text
    for said in (
        "Classes that lost most",
        "--bits",
        "w2a3",
        "--weight-range",
        "git commit",
        "zerosum.run adasg",
        "Above each image is the label",
    ):
        assert said in text
    assert summary["reason"] in text


def test_a_run_that_is_not_finished_has_a_report_too(runs, tmp_path):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    (folder / "summary.json").unlink()
    assert report.main([str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "This run is not finished" in page
    assert "Balance Gap" in page


def test_a_contest_has_its_matches_side_by_side(tmp_path):
    run = tmp_path / "run"
    assert play(["saddle", "--dynamics", "simultaneous", "extragradient", "--rounds", "5", "--out", str(run)]) == 0
    assert report.main([str(run)]) == 0
    page = (run / "report.html").read_text()
    for said in ("The game of simultaneous", "The game of extragradient", "trajectories", "simultaneous: 5 rounds"):
        assert said in page


def test_what_was_not_measured_is_said(tmp_path):
    options = ["--backbone", "cifar_resnet20", "--weights", "random", "--rounds", "0", "--calibration", "1"]
    assert play(["adasg", *options, "--out", str(tmp_path / "run")]) == 0
    assert report.main([str(tmp_path / "run")]) == 0
    assert "Not measured: the run had no --data." in (tmp_path / "run" / "report.html").read_text()


def test_words_in_a_report_are_not_markup(runs, tmp_path):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["command"] = "<script>alert(1)</script>"
    (folder / "config.json").write_text(json.dumps(config))
    assert report.main([str(folder)]) == 0
    assert "<script" not in (folder / "report.html").read_text()


def test_large_pictures_are_made_smaller(runs, tmp_path):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (700, 1800, 3), dtype=np.uint8)
    for picture in (folder / "pictures").iterdir():
        Image.fromarray(noise).save(picture)
    assert report.main([str(folder)]) == 0
    assert (folder / "report.html").stat().st_size < 3e6


def test_seeds_are_taken_together(runs, tmp_path, capsys):
    folders = [runs / name for name in ("seed0", "seed1", "w4", "seed2")]
    seeds, other = read_groups(folders)
    assert (seeds.name, other.name) == ("bits w2a3", "bits w4a4")
    found = [json.loads((runs / f"seed{seed}" / "summary.json").read_text())["after_top1"] for seed in range(3)]
    table = {name: values for name, *values in rows([seeds, other])}
    assert table["runs"] == ["3", "1"]
    mean, deviation = map(float, table["after_top1"][0].split(" ± "))
    assert mean == pytest.approx(np.mean(found), abs=0.5)  # as many digits as the deviation has
    assert deviation == pytest.approx(np.std(found, ddof=1), abs=0.5)

    out = tmp_path / "out"
    assert compare.main([*map(str, folders), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert table["after_top1"][0] in printed
    with (out / "compare.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["", "bits w2a3", "bits w4a4"]
    with Image.open(out / "compare.png") as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_a_contest_is_compared_by_its_figures(tmp_path):
    for seed in (0, 1):
        options = ["--seed", str(seed), "--rounds", "5", "--dynamics", "optimistic"]
        assert play(["saddle", *options, "--out", str(tmp_path / str(seed))]) == 0
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert compare.main([*folders, "--out", str(tmp_path / "out")]) == 0
    assert "optimistic distance" in (tmp_path / "out" / "compare.csv").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "no run there (no config.json)"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("{}"), "it lacks command, device"),
        (lambda f: (f / "metrics.jsonl").write_text("x"), "metrics.jsonl cannot be read"),
        (lambda f: (f / "summary.json").write_text("x"), "summary.json cannot be read"),
    ],
)
def test_what_is_no_run_is_named(runs, tmp_path, capsys, spoil, message):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    spoil(folder)
    for command in (report, compare):
        arguments = [str(folder), "--out", str(tmp_path / "out")]
        assert command.main(arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "out" / "compare.csv").exists()


def test_runs_that_are_not_finished_are_not_compared(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    (folder / "summary.json").unlink()
    assert compare.main([str(folder)]) == 2
    assert "that run is not finished" in capsys.readouterr().err


def test_options_of_a_part_are_shown_one_by_one(runs, tmp_path):
    page = tmp_path / "report.html"
    assert report.main([str(runs / "seed0"), "--out", str(page)]) == 0
    assert "<td>--weight-range</td><td>auto</td>" in (text := page.read_text(encoding="utf-8"))
    assert "<td>--scheme" not in text
    other = shutil.copytree(runs / "seed0", tmp_path / "run")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config["options"]["scheme"]["weight_range"] = "minmax"
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert [group.name for group in read_groups([runs / "seed0", other])] == [
        "weight-range auto",
        "weight-range minmax",
    ]


def test_options_flat():
    """By their own names; by the part's too where two are named alike."""
    kept = {"bits": "w2a3", "lr": 1.0, "scheme": {"grid": "pow2", "lr": 2.0}, "other": {"deep": {"a": 1}, "b": []}}
    assert flat(kept) == {"bits": "w2a3", "lr": 1.0, "grid": "pow2", "scheme.lr": 2.0, "a": 1, "b": []}
    assert flat({"x": {"a": 1}, "y": {"a": 2}}) == {"x.a": 1, "y.a": 2}
    assert flat({"none": {}}) == {"none": {}}


@pytest.mark.parametrize("content", [b"picture", b"", "cut"], ids=["text", "empty", "cut"])
def test_a_picture_that_cannot_be_read_is_left_out_and_said_to_be(content, runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "seed0", tmp_path / "run")
    path = folder / "pictures" / "round-000000.png"
    (folder / "of_the_recipe.png").write_bytes(b"")
    path.write_bytes(path.read_bytes()[:3000] if content == "cut" else content)
    assert report.main([str(folder)]) == 0
    said = capsys.readouterr().err
    page = (folder / "report.html").read_text(encoding="utf-8")
    for name in ("round-000000.png", "of_the_recipe.png"):
        assert f"the picture {name}: " in said
        assert f"Not shown: the picture {name}: " in page
    assert "the report goes on without" in said
    assert "round 0" not in page
    assert page.count("round 10</figcaption>") == page.count("round 20</figcaption>") == 1
    assert "Above each image is the label" in page  # as the pictures that are left say


def journal(sizes, **rest):
    return [{"round": 0}, *({"round": i + 1, "payoff": float(i), "step_sizes": s} | rest for i, s in enumerate(sizes))]


def test_what_is_marked():
    steps = [{"g": 1.0}] * 3 + [{"g": 1.0, "q": 1.0}] * 2 + [{"g": 0.1, "q": 1.0}] * 2
    assert [tuple(mark) for mark in marks(journal(steps))] == [(4, "q comes in"), (6, "g: step size × 0.1")]
    cosine = [{"q": 1 + np.cos(np.pi * t / 100)} for t in range(100)]
    assert marks(journal(cosine)) == []  # however steep it is near its end


def test_many_rounds_are_drawn_as_means_with_their_extremes():
    lines = journal([{"q": 1.0}] * 30_000)
    (payoff,) = panels(lines)
    (curve,) = payoff.curves
    assert len(curve.values) == 300
    assert (curve.rounds[0], curve.values[0], curve.low[0], curve.high[0]) == (50.5, 49.5, 0, 99)
    few = panels(journal([{"q": 1.0}] * 3))[0].curves[0]
    assert few.values == few.low == few.high == [0, 1, 2]
