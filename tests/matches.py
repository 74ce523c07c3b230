"""Matches that are broken off and taken up again."""

import io

import torch


def broken_off(make, stop):
    """Three matches that ``make`` gives: played to its end; broken off after so many rounds; and gone on from the state
    of that one, which had been in a file, whatever random numbers were drawn in between."""
    whole = make()
    whole.play()
    first = make()
    first.rounds = stop
    first.play()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    rest = make()
    torch.manual_seed(99)
    rest.load_state_dict(torch.load(file, weights_only=True))
    rest.play()
    return whole, first, rest
