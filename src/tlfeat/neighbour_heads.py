"""The address of `NeighbourHead` in heads that were saved before 0.2."""

from tlfeat.heads.neighbours import NeighbourHead as NeighbourHead
