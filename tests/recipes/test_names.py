"""Files and folders are called what people call them: with brackets, a home directory, letters of any language."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.processes import lines
from zerosum import compare, export, report
from zerosum.players import load_backbone
from zerosum.runs.run import main

SHORT = ["--rounds", "3", "--warmup", "1", "--calibration", "1", "--batch-size", "4", "--measure-every", "1"]
SHORT += ["--block-steps", "0"]


def class_folders(folder, names):
    for grey, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.new("L", (8, 8), 20 * grey).save(folder / name / "x.png")


def test_brackets_and_the_home_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    torch.save(load_backbone("digits_resnet8").state_dict(), tmp_path / "[bold]w.pth")
    class_folders(tmp_path / "[i]data[x]", map(str, range(10)))
    read = ["--weights", "~/[bold]w.pth", "--data=~/[i]data[x]"]
    assert main(["adasg", *SHORT, *read, "--out=~/[red]run[1]"]) == 0
    run = tmp_path / "[red]run[1]"
    assert f"kept in {run}\n" in capsys.readouterr().out
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["inputs"]["weights"]["path"] == config["options"]["weights"] == str(tmp_path / "[bold]w.pth")
    assert config["inputs"]["data"]["path"] == config["options"]["data"] == str(tmp_path / "[i]data[x]")

    assert report.main(["~/[red]run[1]", "--out", "~/[b]report.html"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / '[b]report.html'}\n"
    assert "<h1>adasg: [red]run[1]</h1>" in (tmp_path / "[b]report.html").read_text(encoding="utf-8")
    assert compare.main(["~/[red]run[1]", "--out=~/[b]out"]) == 0
    assert f"kept in {tmp_path / '[b]out'}\n" in capsys.readouterr().out
    assert (tmp_path / "[b]out" / "compare.csv").exists()
    assert export.main(["~/[red]run[1]", "--format", "pt2"]) == 0
    assert f"{run / 'quantized.pt2'}; compared on" in capsys.readouterr().out

    (run / "summary.json").unlink()
    assert main(["adasg", "--resume", "~/[red]run[1]"]) == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("command", [report, compare, export])
def test_refusals_have_them_as_they_are(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.main(["~/[red]none[/red]"]) == 2
    assert capsys.readouterr().err.startswith(f"zerosum: {tmp_path}/[red]none[/red]: no")


def test_what_the_command_line_refuses_to_read_has_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for option, path in {"--weights": "~/[red]w.pth", "--data": "~/[red]data"}.items():
        assert main(["adasg", option, path, "--out=~/run"]) == 2
        assert path.removeprefix("~") in capsys.readouterr().err
    (tmp_path / "[red]run").write_text("a file", encoding="utf-8")
    assert main(["adasg", *SHORT, "--out=~/[red]run"]) == 2
    assert f"--out {tmp_path}/[red]run: there is a file of that name" in capsys.readouterr().err


ALL = """
import sys
from zerosum.runs import compare, report
from zerosum.runs.run import main

data, run, out, *options = sys.argv[1:]
assert sys.getfilesystemencoding() == "ascii" or sys.platform != "linux", sys.getfilesystemencoding()
assert main(["adasg", *options, "--data", data, "--out", run]) == 0
assert report.main([run]) == 0
assert compare.main([run, "--out", out]) == 0
"""


@pytest.mark.skipif(os.name != "posix", reason="locales are POSIX")
def test_a_run_where_the_locale_knows_ascii_alone(tmp_path):
    """Written there, read here, and the other way round."""
    names = [f"{number} Kätzchen 猫 [é]" for number in range(10)]
    class_folders(tmp_path / "Bilder ß", names)
    run, out = tmp_path / "Lauf ü", tmp_path / "Vergleich ö"
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", ALL, str(tmp_path / "Bilder ß"), str(run), str(out), *SHORT],
        env={name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"} | ascii_alone,
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert ended.returncode == 0, ended.stderr.decode("utf-8", "replace")
    read = {name: json.loads((run / name).read_text(encoding="utf-8")) for name in ("config.json", "summary.json")}
    assert os.fsencode(read["config.json"]["options"]["data"]) == os.fsencode(tmp_path / "Bilder ß")
    assert read["summary.json"]["images"] == 10
    assert [line["round"] for line in lines(run)] == [0, 1, 2, 3]
    assert (out / "compare.csv").read_text(encoding="utf-8")

    again = shutil.copytree(run, tmp_path / "noch einmal ü")
    (again / "summary.json").unlink()
    assert main(["adasg", "--resume", str(again)]) == 0
    summary = json.loads((again / "summary.json").read_text(encoding="utf-8"))
    assert summary["after_top1"] == read["summary.json"]["after_top1"]
    assert "Kätzchen 猫 [é]" in (again / "classes.csv").read_text(encoding="utf-8")
    assert report.main([str(again)]) == 0
    assert "<h1>adasg: noch einmal ü</h1>" in (again / "report.html").read_text(encoding="utf-8")
