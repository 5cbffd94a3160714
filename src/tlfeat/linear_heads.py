"""The address of `LinearHead` in heads that were saved before 0.2."""

from tlfeat.heads.linear import LinearHead as LinearHead
