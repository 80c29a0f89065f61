"""Optimisers that are learned."""

from .coordinate_lstm import CellState, init_cell, preprocess, start, step
from .learned import LearnedOptimizerState, learned_optimizer

__all__ = [
    "CellState",
    "LearnedOptimizerState",
    "init_cell",
    "learned_optimizer",
    "preprocess",
    "start",
    "step",
]
