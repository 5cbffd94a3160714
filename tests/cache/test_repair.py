"""What `verify` finds, what repair drops, what is salvaged; everything sound stays."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from made_data import FINGERPRINT, filled_cache, some_rows, table_of
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.cli.app import app
from tlfeat.errors import CacheError


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return filled_cache(tmp_path / "c.h5")


def test_verify_names_the_row_whose_bit_flipped(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        file["layers/pooled/rows"][7, 2] += np.float32(1e-6)
    with open_cache(filled) as cache:
        assert cache.verify() == ["layer 'pooled', row 7: the checksum does not fit"]


def test_verify_says_which_images_have_no_row(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        file["layers/pooled/n_rows"][()] = 190
    with open_cache(filled) as cache:
        assert cache.verify() == [
            "layer 'pooled': 10 rows beyond the number that is recorded",
            "layer 'pooled': 10 images have no row; run tlfeat extract again",
        ]


def _flip(file: h5py.File) -> None:
    file["layers/pooled/rows"][7:11, 2] += np.float32(1e-6)
    file["layers/pooled/keys"][199, 0] ^= 1


def _not_finite(file: h5py.File) -> None:
    row = np.full(6, np.nan, np.float32)
    file["layers/pooled/rows"][3] = row
    file["layers/pooled/crc32"][3] = zlib.crc32(row.tobytes(), zlib.crc32(file["layers/pooled/keys"][3].tobytes()))


def _same_twice(file: h5py.File) -> None:
    for name in ("rows", "keys", "crc32"):
        file["layers/pooled"][name][9] = file["layers/pooled"][name][4]


def _torn_tail(file: h5py.File) -> None:
    file["layers/pooled/n_rows"][()] = 190


def _strangers(file: h5py.File) -> None:
    file["notes"] = [1, 2, 3]
    file["layers/pooled/more"] = 1
    file.attrs["author"] = "someone"
    file["layers/pooled/rows"].attrs["unit"] = "m"


def _table_gone(file: h5py.File) -> None:
    del file["images/key"]
    file["images"].create_dataset("key", data=np.array([b"no key"] * 200), chunks=(200,))


@pytest.mark.sample("_flip-said0-195", "_torn_tail-said3-190", "_table_gone-said5-200")
@pytest.mark.parametrize(
    ("harm", "said", "n_kept"),
    [
        (_flip, ["layer 'pooled', rows 7 to 10, 199 (5 rows): the checksum does not fit"], 195),
        (_not_finite, ["layer 'pooled', row 3: not all values are finite"], 199),
        (_same_twice, ["layer 'pooled', row 9: the same key stands there before"], 199),
        (_torn_tail, ["layer 'pooled': 10 rows beyond the number that is recorded"], 190),
        (
            _strangers,
            [
                f"{name} is nothing that tlfeat has written"
                for name in ("/@author", "/notes", "/layers/pooled/more", "/layers/pooled/rows/@unit")
            ],
            200,
        ),
        (_table_gone, ["FILE is damaged: its table of images holds what is no key or status."], 200),
    ],
)
def test_repair_drops_what_verify_finds_and_keeps_the_rest(
    filled: Path, harm: Callable[[h5py.File], None], said: list[str], n_kept: int
) -> None:
    rows, keys = some_rows(200)
    said = [line.replace("FILE", str(filled)) for line in said]
    with h5py.File(filled, "r+") as file:
        harm(file)
    with open_cache(filled) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == said
    assert repair_cache(filled) == said
    with open_cache(filled, writable=True) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == []
        kept = [i for i, key in enumerate(keys) if key in cache.known("pooled")]
        assert len(kept) == n_kept == cache.n_rows("pooled")
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        cache.append({"pooled": rows}, keys)
        cache.write_table(table_of(keys))
        assert cache.verify() == []
    assert repair_cache(filled) == []


def test_a_compressed_chunk_that_cannot_be_read_costs_its_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    rows, keys = some_rows(200)
    with create_cache(path, FINGERPRINT, {}, is_compressed=True) as cache:
        cache.append({"pooled": rows}, keys)
        cache.write_table(table_of(keys))
    with h5py.File(path) as file:
        chunk = file["layers/pooled/rows"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 20 : chunk.byte_offset + 40] = b"x" * 20
    path.write_bytes(data)
    said = ["layer 'pooled', rows 64 to 127 (64 rows): cannot be read"]
    with open_cache(path) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == said
    assert repair_cache(path) == said
    with open_cache(path) as cache:
        kept = [i for i in range(200) if not 64 <= i < 128]
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        assert cache.verify() == ["layer 'pooled': 64 images have no row; run tlfeat extract again"]


def test_what_cannot_be_opened_is_salvaged_and_kept_aside(filled: Path) -> None:
    rows, keys = some_rows(200)
    with h5py.File(filled, "r+") as file:
        file["layers"]["linked"] = h5py.ExternalLink("/etc/passwd", "/")
        file["layers/pooled/rows"][5] = 0
    damaged = filled.read_bytes()
    with pytest.raises(CacheError, match="link to elsewhere"):
        open_cache(filled)
    dropped = repair_cache(filled)
    assert "It is kept as c.h5.damaged." in dropped[0]
    assert any(line == "layer 'pooled', row 5: the checksum does not fit" for line in dropped)
    assert filled.with_name("c.h5.damaged").read_bytes() == damaged
    assert sorted(p.name for p in filled.parent.iterdir()) == ["c.h5", "c.h5.damaged"]
    with open_cache(filled) as cache:
        kept = [i for i in range(200) if i != 5]
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        assert cache.verify() == ["layer 'pooled': 1 images have no row; run tlfeat extract again"]


def test_what_is_salvaged_still_says_what_it_was_made_with_and_how_long_that_took(filled: Path) -> None:
    made_with = {"tlfeat": "0.0.7", "python": "3.9.1", "packages": {"numpy": "1.8"}}
    timing = {"extract_s": 12.5, "embed_s": 9.25, "n_embedded": 200, "runtime": "openvino 1"}
    with open_cache(filled, writable=True) as cache:
        cache.write_document("timing", timing)
    with h5py.File(filled, "r+") as file:
        file.attrs["environment"] = np.bytes_(json.dumps(made_with))
        file["layers"]["linked"] = h5py.ExternalLink("/etc/passwd", "/")
    repair_cache(filled)
    with open_cache(filled) as cache:
        assert (cache.environment, cache.timing) == (made_with, timing)


def test_where_nothing_can_be_kept_the_message_says_so_and_the_file_stays(filled: Path) -> None:
    filled.write_bytes(b"x" * 1000)
    with pytest.raises(CacheError, match="Nothing in it can be kept: delete it and run tlfeat extract again"):
        repair_cache(filled)
    assert [(p.name, p.read_bytes()) for p in filled.parent.iterdir()] == [("c.h5", b"x" * 1000)]


def test_repairing_what_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="No cache at"):
        repair_cache(tmp_path / "gone.h5")
    with pytest.raises(CacheError, match="a folder without shards, not a cache"):
        repair_cache(tmp_path)


def test_verify_on_the_command_line_repairs_when_asked(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        _flip(file)
    runner = CliRunner()
    found = runner.invoke(app, ["cache", "verify", "--cache", str(filled)])
    assert (found.exit_code, "rows 7 to 10, 199 (5 rows): the checksum" in found.stdout) == (3, True)
    repaired = runner.invoke(app, ["cache", "verify", "--repair", "--cache", str(filled), "--json"])
    assert repaired.exit_code == 0
    said = json.loads(repaired.stdout)
    assert (said["n_rows"], said["dropped"]) == (195, found.stdout.splitlines()[:1])
    assert runner.invoke(app, ["cache", "verify", "--cache", str(filled)]).exit_code == 3  # five images have no row
