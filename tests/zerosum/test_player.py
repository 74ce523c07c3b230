import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from zerosum import Player


def refused(module, optimizer, message, **options):
    with pytest.raises(ValueError, match=message):
        Player("x", module, optimizer, "maximize", **options)


def test_an_optimizer_that_moves_the_player_the_wrong_way_is_refused():
    network = nn.Linear(2, 2)
    refused(network, SGD(network.parameters(), 0.1, maximize=True), "'x': its optimizer maximizes")
    refused(network, Adam([{"params": [network.weight], "maximize": True}, {"params": [network.bias]}]), "maximizes")
    refused(network, LBFGS(network.parameters()), "'x': LBFGS evaluates the loss itself")


def test_an_optimizer_that_moves_nothing_of_the_player_is_refused():
    network = nn.Linear(2, 2)
    refused(copy.deepcopy(network), SGD(network.parameters(), 0.1), "2 of the 2 parameters .* are not its module's")
    other = nn.Linear(2, 2)
    both = SGD([*network.parameters(), other.weight], 0.1)
    refused(network, both, "1 of the 3 parameters")
    optimizer = SGD(network.parameters(), 0.1)
    network.requires_grad_(False)
    refused(network, optimizer, "no parameter in its optimizer requires a gradient")


def test_a_schedule_that_moves_nothing_of_the_player_is_refused():
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = SGD(network.parameters(), 0.1)
    refused(network, optimizer, "another optimizer's", schedule=StepLR(SGD(other.parameters(), 0.1), 1))
    refused(network, optimizer, "steps on a measurement", schedule=ReduceLROnPlateau(optimizer))


def test_a_module_in_distributed_data_parallel_is_refused(tmp_path):
    """Its reducer hears of ``.grad`` alone, so that ranks would drift apart without a word."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network = DistributedDataParallel(nn.Linear(2, 2))
        refused(network, SGD(network.parameters(), 0.1), "hand in the module inside it")
        refused(nn.Sequential(network), SGD(network.parameters(), 0.1), "hand in the module inside it")
    finally:
        torch.distributed.destroy_process_group()
