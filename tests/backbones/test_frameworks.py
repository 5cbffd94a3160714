"""How large packages are imported."""

from __future__ import annotations

import gc
import weakref

import pytest

from tlfeat.backbones.frameworks import uncollected


class Node:
    """Something that garbage collection knows of."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("is_enabled", [True, False])
def test_what_an_import_makes_is_left_out_of_collections_and_garbage_of_before_is_not(is_enabled: bool) -> None:
    garbage = weakref.ref(Node())
    try:
        if not is_enabled:
            gc.disable()
        with pytest.raises(ImportError), uncollected("never_imported"):
            assert (garbage(), gc.isenabled()) == (None, False)
            made = Node()
            raise ImportError
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
    assert not any(known is made for known in gc.get_objects())


def test_a_package_that_is_there_freezes_nothing() -> None:
    made = Node()
    with uncollected("gc"):
        assert gc.isenabled()
    found = weakref.ref(made)
    del made
    gc.collect()
    assert found() is None
