"""The address of `KernelHead` in heads that were saved before 0.2."""

from tlfeat.heads.earlier import KernelHead as KernelHead
