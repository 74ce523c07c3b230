"""What a round computes, beside the plain round of benchmarks/published.py: the same, and no more than it needs."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.published import PublishedRound
from benchmarks.round import Arithmetic
from zerosum import Simultaneous
from zerosum.players import Scheme
from zerosum.recipes.adasg import Config, make_game
from zerosum.recipes.common.data_free import scene_of


def play(game):
    return Simultaneous().step(game, game.players)


SCHEME = Scheme("minmax", activation_range="ema")  # as published


def made(device="cpu", **options):
    """A scene whose student has its ranges, and its game."""
    config = Config(rounds=20, warmup=0, calibration=4, block_steps=0, device=device, scheme=SCHEME, **options)
    scene = scene_of(config)
    scene.calibrate()
    return config, scene, make_game(scene, config)


def parameters(network):
    named = ((name.replace("parametrizations.weight.original", "weight"), p) for name, p in network.named_parameters())
    return {name: p.detach() for name, p in named}


@pytest.mark.parametrize("bits", ["w2a3", "w4a4"])
def test_twenty_rounds_are_those_of_the_plain_round(bits):
    # In float64: in float32 a value that falls on the other side of a tie between two levels makes all of a step's
    # difference, and Adam makes a step of a gradient that is nothing but rounding (docs/performance.md).
    torch.set_default_dtype(torch.float64)
    try:
        config, scene, game = made(bits=bits)
        for network in (scene.source.module, scene.pair.teacher, scene.pair.student):
            network.double()
        scene.calibrate()
        plain = PublishedRound(scene, config)
        start = {name: value.clone() for name, value in parameters(scene.pair.student).items()}
        for round in (lambda: play(game), plain.play):
            torch.manual_seed(1)
            for _ in range(20):
                round()
    finally:
        torch.set_default_dtype(torch.float32)
    for engine, published in ((scene.source.module, plain.generator), (scene.pair.student, plain.student)):
        torch.testing.assert_close(parameters(engine), parameters(published), rtol=1e-5, atol=1e-9)
    assert any((value - start[name]).norm() > 1e-3 * value.norm() for name, value in parameters(plain.student).items())


def work(action):
    with Arithmetic() as found:
        action()
    return found.multiply_accumulates


def test_a_round_computes_each_network_forward_once_and_the_gradients_that_someone_reads():
    _, scene, game = made()
    drawn = scene.source.sample()
    images = scene.source.module(*drawn)
    generator, teacher = work(lambda: scene.source.module(*drawn)), work(lambda: scene.pair.teacher(images))
    student = work(lambda: scene.pair.student(images))
    first = work(lambda: scene.pair.student.conv1(images))  # whose input is no player's when the student learns
    # G: forward, and gradients of inputs and of weights. P: forward, and of inputs. Q: forward, of inputs for each
    # player, and of weights.
    assert work(lambda: play(game)) == 3 * generator + 2 * teacher + 4 * student - first
    with game.only(game.players[:1]):
        assert work(lambda: Simultaneous().step(game, game.players[:1])) == 3 * generator + 2 * teacher + 2 * student


class Waits(TorchDispatchMode):
    """Counts the values that Python reads from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_round_reads_nothing_back_from_the_device():
    _, _, game = made()
    play(game)
    with Waits() as waits:
        result = play(game)
    assert waits.count == 0
    with waits:
        result.payoff.item()
    assert waits.count == 1


def test_no_graph_outlives_its_round():
    _, scene, game = made()
    play(game)
    assert scene.prior.take() == ([], [])


def test_networks_in_bfloat16_play_the_same_game_more_coarsely():
    found = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        _, scene, game = made(precision=precision)
        quantizer = scene.pair.student.conv1.parametrizations.weight[0]
        assert quantizer.grid_of(scene.pair.student.conv1.weight).scale.dtype == torch.float32
        torch.manual_seed(1)
        drawn = game.play(game.sample())
        assert {drawn.p.dtype, drawn.q.dtype, drawn.seen[0][0][0].dtype} == {torch.float32}
        found[precision] = drawn
        play(game)
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in scene.pair.student.parameters())
    distance = (found["fp32"].p - found["bf16"].p).norm() / found["fp32"].p.norm()
    assert 0 < distance < 0.1


@pytest.mark.slow
def test_compiled_networks_play_the_same_game():
    found = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        _, _, game = made(compile=compiled, bits="w32a32")
        torch.manual_seed(1)
        found[compiled] = play(game)
    torch.testing.assert_close(found[True].losses, found[False].losses, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"compile": True}])
def test_rounds_on_cuda_wait_for_nothing(options):
    _, _, game = made("cuda", **options)
    for _ in range(3):
        play(game)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = play(game)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 <= result.payoff.item() <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_kept_costs_no_page_faults():
    program = """
import resource, sys, torch
from zerosum.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # the heap settles
    torch.ones(2**24)
before = faults()
for _ in range(5):
    torch.ones(2**24)
print(faults() - before)
"""
    found = {
        how: int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("leave", "keep")
    }
    assert found["keep"] < found["leave"] / 10
