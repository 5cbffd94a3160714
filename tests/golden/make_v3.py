"""The cache of format 3, with domains: this script made ``cache-v3.h5`` and will not be run again.

``python tests/golden/make_v3.py``, from the folder of the repository. See ``make.py`` for the files before it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from made_data import FINGERPRINT, some_rows, table_of  # noqa: E402
from tlfeat.cache.store import create_cache  # noqa: E402

if __name__ == "__main__":
    rows, keys = some_rows(5)
    table = table_of(keys)
    images = replace(table.images, domains=["Haus Süd", "", "photo", "photo", "art painting"])
    with create_cache(HERE / "cache-v3.h5", FINGERPRINT, {"root": "/data", "source": "/data"}) as cache:
        cache.append({"pooled": rows}, keys)
        cache.write_table(replace(table, images=images))
