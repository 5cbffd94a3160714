"""How much memory a process has and gives back."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from tlfeat.memory import give_back_memory


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed, and says how it goes back"
)
def test_memory_that_was_freed_between_what_is_held_goes_back() -> None:
    import resource  # Windows has none

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    blocks = [np.ones(90_000, np.uint8) for _ in range(400)]
    held, blocks = blocks[::2], []
    before = resident()
    give_back_memory()
    assert before - resident() > 10e6
    assert sum(int(block.sum()) for block in held) == 18_000_000
