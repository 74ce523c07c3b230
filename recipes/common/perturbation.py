"""An adversary inside a step of Q: pixels that move against it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zerosum import Term
from zerosum.recipes.common.play import Play
from zerosum.recipes.common.scene import Scene


def reaching_images(
    scene: Scene, prepared: Callable[[Tensor], Tensor] = lambda images: images
) -> Callable[[Any], Play]:
    """Evaluations of a game in which nobody makes images, and gradients reach them nevertheless; P and Q see them
    ``prepared``."""

    def play(drawn: Any) -> Play:
        images = prepared(scene.source.images(drawn)).detach().requires_grad_()
        with torch.enable_grad():  # also for whoever only wants to know what the losses are
            return scene.see(images, scene.source.labels(drawn))

    return play


def moved_against(loss: Callable[[Play], Tensor], scene: Scene, size: float) -> Term:
    """``loss`` on the images of a play moved to raise it, by ``size`` in normalised input space along the sign of its
    gradient, of which nothing is differentiated in its turn (HAST, after Goodfellow et al., ICLR 2015).

    Where gradients do not reach the play's images (they do in games of :func:`reaching_images`, and while a player
    makes them), P and Q see them once more for it.
    """

    def term(play: Play) -> Tensor:
        with torch.enable_grad():
            if not (play.images.requires_grad and play.q.requires_grad):
                play = scene.see(play.images.detach().requires_grad_(), play.labels)
            (gradient,) = torch.autograd.grad(loss(play), play.images, retain_graph=True)
        return loss(scene.see(play.images.detach() + size * gradient.sign(), play.labels))

    return term
