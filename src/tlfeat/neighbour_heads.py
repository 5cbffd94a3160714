"""The address of `NeighbourHead` in heads that were saved before 0.2."""

from tlfeat.heads.earlier import NeighbourHead as NeighbourHead
