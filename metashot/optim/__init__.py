"""Optimisers that are learned."""

from .coordinate_lstm import CellState, init_cell, preprocess, start, step

__all__ = ["CellState", "init_cell", "preprocess", "start", "step"]
