"""What users may hand over, at random: never a traceback, never code that runs, never another run's file touched."""

import io
import os
import pickle
import random
import string

import pytest
import torch
from safetensors.torch import save

from zerosum.players import load_backbone, load_quantized
from zerosum.runs.run import main

NAME = "digits_resnet8"
NONE = ["--rounds", "0", "--calibration", "1", "--batch-size", "4"]


class Malicious:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def as_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def corrupted(chance, state, proof):
    """The content of a weight file that something has happened to, and its ending."""
    ending = chance.choice([".pth", ".safetensors"])
    state = dict(state)
    key = chance.choice([name for name, value in state.items() if value.is_floating_point()])
    how = chance.choice(["truncated", "flipped", "keys", "shape", "nan", "pickle", "object", "noise"])
    if how == "keys":
        state[key + chance.choice("xyz")] = state.pop(key)
    elif how == "shape":
        state[key] = torch.cat([state[key], state[key]])
    elif how == "nan":
        state[key] = state[key].clone()
        state[key].view(-1)[0] = chance.choice([float("nan"), float("inf"), -float("inf")])
    content = as_torch(state) if ending == ".pth" else save(state)
    if how == "truncated":
        content = content[: chance.randrange(len(content))]
    elif how == "flipped":
        flipped = bytearray(content)
        for _ in range(chance.randint(1, 20)):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        content = bytes(flipped)
    elif how == "pickle":
        content = pickle.dumps(Malicious(proof), protocol=chance.randint(0, 5))
    elif how == "object":
        content = as_torch({"state_dict": state, key: Malicious(proof)})
    elif how == "noise":
        content = chance.randbytes(chance.randrange(2000))
    return content, ending


def refusal_of(load, *arguments):
    """What a loader says when it refuses; None where it takes the file. Any other error is the test's."""
    try:
        load(*arguments)
    except ValueError as error:
        return str(error)
    return None


def test_corrupted_weights_are_refused_or_harmless(tmp_path):
    times, chance, proof = 300, random.Random(0), tmp_path / "proof"
    state = load_backbone(NAME).state_dict()
    refused = 0
    for _ in range(times):
        content, ending = corrupted(chance, state, proof)
        path = tmp_path / f"weights{ending}"
        path.write_bytes(content)
        refusal = refusal_of(load_backbone, NAME, path)
        refused += refusal is not None
        if refusal is None:  # a bit of a value
            assert all(value.isfinite().all() for value in load_backbone(NAME, path).state_dict().values())
        else:
            assert str(path) in refusal
            assert len(refusal.splitlines()) == 1
        assert not proof.exists()
    assert refused > 0.75 * times


@pytest.mark.parametrize("how", ["truncated", "flipped", "pickle"])
def test_corrupted_weights_on_the_command_line(how, tmp_path, capsys):
    state, proof, path = load_backbone(NAME).state_dict(), tmp_path / "proof", tmp_path / "weights.pth"
    content = as_torch(state)
    path.write_bytes(
        {"truncated": content[:-9], "flipped": b"X" + content[1:], "pickle": pickle.dumps(Malicious(proof))}[how]
    )
    assert main(["adasg", "--backbone", NAME, "--weights", str(path), "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not proof.exists()
    assert not (tmp_path / "run").exists()


def test_corrupted_quantized_networks_are_refused_or_harmless(tmp_path):
    assert main(["adasg", *NONE, "--out", str(tmp_path / "run")]) == 0
    content = (tmp_path / "run" / "quantized.safetensors").read_bytes()
    chance, path = random.Random(1), tmp_path / "q.safetensors"
    for _ in range(100):
        flipped = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randint(1, 20)):
            flipped[chance.randrange(min(len(flipped), 3000))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        assert str(path) in (refusal_of(load_quantized, path) or str(path))


RECIPES = [
    "adasg",
    "adasg",
    "saddle",
    "matrix_game",
    "gan_ring",
    "robust_digits",
    "digits_teacher",
    "reconstruction",
    "nothing",
    "../x.py",
    "-h",
]
OPTIONS = [
    "--rounds",
    "--seed",
    "--device",
    "--out",
    "--resume",
    "--step-scale",
    "--on-divergence",
    "--max-rewinds",
    "--checkpoint-every",
    "--checkpoints",
    "--tensorboard",
    "--backbone",
    "--weights",
    "--num-classes",
    "--data",
    "--bits",
    "--layer-bits",
    "--first-last-bits",
    "--weight-range",
    "--weight-grid",
    "--sums",
    "--warmup",
    "--leaves",
    "--dropped",
    "--pool",
    "--block-steps",
    "--effort",
    "--batch-size",
    "--calibration",
    "--dynamics",
    "--gap-every",
    "--gap-tolerance",
    "--measure-every",
    "--low",
    "--quantized-lr",
    "--temperature",
    "--game",
    "--step",
    "--payoff",
    "--epsilon",
    "--hlep",
    "--",
    "-x",
    "rounds",
]
VALUES = [
    "0",
    "1",
    "2",
    "-1",
    "3.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9223372036854775807",
    "None",
    "True",
    "w4a4",
    "w0a0",
    "cpu",
    "cuda",
    "auto",
    "rewind",
    "stop",
    "digits",
    "random",
    "package:none",
    "resnet18x",
    "digits_resnet8",
    "lsq",
    "mse",
    "symmetric",
    "quantized",
    "simultaneous",
    "optimistic",
    "bilinear",
    "rps",
    "conv*=w8a8",
    "/dev/null",
    "/",
    "ü",
    "\x00",
]


def play_random_lines(times, folder, capsys):
    """Among what they name is a finished run, which nothing may touch."""
    other = folder / "other"
    assert main(["adasg", *NONE, "--out", str(other)]) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    chance, codes = random.Random(0), set()
    for count in range(times):
        recipe = chance.choice(RECIPES)
        line = [recipe, "--out", str(folder / f"run{count}")] if chance.random() < 0.9 else [recipe]
        line += ["--rounds", "1"]
        if recipe in ("adasg", "reconstruction"):
            line += ["--calibration", "1", "--batch-size", "2", "--block-steps", "1", "--pool", "4"]
        for _ in range(chance.randint(0, 4)):
            line.append(chance.choice(OPTIONS))
            if chance.random() < 0.9:
                noise = "".join(chance.choices(string.printable, k=5))
                line.append(chance.choice([*VALUES, "", " ", str(other), str(folder / "none"), noise]))
        try:
            code = main(line)
        except SystemExit as ended:  # of the parser
            code = ended.code
        captured = capsys.readouterr()
        assert code in (0, 2, 3), line
        assert "Traceback" not in captured.out + captured.err, line
        codes.add(code)
    assert codes >= {0, 2}
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in other.rglob("*") if path.is_file()} == {path for path in before if other in path.parents}


def test_random_command_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play_random_lines(25, tmp_path, capsys)


@pytest.mark.slow
def test_a_thousand_random_command_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play_random_lines(1000, tmp_path, capsys)
