"""An image's path alone says its shard, on every machine and in every version."""

from __future__ import annotations

import pytest

from made_data import make_table
from tlfeat.errors import UsageError
from tlfeat.images.shards import Shard, parse_shard, shard_named, shard_of


def test_the_shard_of_a_path_is_the_same_for_ever() -> None:
    paths = ["cat/1.jpg", "cat/2.jpg", "größe/ä.png", "x" * 300]
    assert [shard_of(path, 64) for path in paths] == [9, 28, 61, 24]
    assert shard_of("gro\u0308ße/a\u0308.png", 64) == 61  # as a Mac writes the same name


def test_every_image_is_in_one_shard_and_shards_are_about_equal() -> None:
    images = make_table(["cat", "dog", "elk"] * 400).images
    parts = [Shard(number, 7).of(images) for number in range(1, 8)]
    assert sorted(path for part in parts for path in part.paths) == sorted(images.paths)
    assert min(map(len, parts)) > 120
    label_of = dict(zip(images.paths, images.labels, strict=True))
    assert all(label_of[path] == label for part in parts for path, label in zip(part.paths, part.labels, strict=True))


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "1/10001", "-1/4", "1/4/2", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


def test_the_name_of_a_file_says_its_shard() -> None:
    shard = parse_shard(" 3/64 ")
    assert (shard, str(shard), shard.file_name) == (Shard(3, 64), "3/64", "shard-00003-of-00064.h5")
    assert shard_named(shard.file_name) == shard
    assert [shard_named(name) for name in ("shard-00005-of-00004.h5", "shard-3-of-64.h5", "one.h5")] == [None] * 3
