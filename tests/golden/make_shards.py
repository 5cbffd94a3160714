"""Shards and their manifest of format 1: this script made ``shards/`` and will not be run again.

``python tests/golden/make_shards.py``, from the folder of the repository. See ``make.py`` for the files before it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from made_data import FINGERPRINT, some_rows, table_of  # noqa: E402
from tlfeat.cache.shard_join import join_shards  # noqa: E402
from tlfeat.cache.store import create_cache  # noqa: E402
from tlfeat.images.shards import Shard  # noqa: E402

if __name__ == "__main__":
    (HERE / "shards").mkdir()
    rows, keys = some_rows(7)
    for number, at in ((1, [0, 1, 2, 3]), (2, [4, 1, 5, 6])):  # one key is in both
        file = HERE / "shards" / Shard(number, 2).file_name
        paths = [f"a/{number}-{i}.png" for i in at]
        with create_cache(file, FINGERPRINT, {"root": "/data", "source": "/data"}) as cache:
            cache.append({"pooled": rows[at]}, [keys[i] for i in at])
            cache.write_table(table_of([keys[i] for i in at], paths))
    join_shards(HERE / "shards")
