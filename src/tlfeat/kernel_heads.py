"""The address of `KernelHead` in heads that were saved before 0.2."""

from tlfeat.heads.kernel import KernelHead as KernelHead
