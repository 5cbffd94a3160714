"""One worker of many: it gets shards dealt and runs the same extraction as any other process, each into its own cache.

No engine here: whoever starts it hands in how files that travel are fetched.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import weights_file
from tlfeat.backbones.runtime import is_converted
from tlfeat.errors import BadImage, CacheError, CacheLocked, TlfeatError
from tlfeat.extract.dealing import Deal, Outcome, UnderWay
from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.extract.reference import embed_reference
from tlfeat.extract.shard_lists import lists_in, read_list
from tlfeat.images.decode import decode_bytes, read_file
from tlfeat.images.image_set import ImageSet
from tlfeat.images.lines import Names
from tlfeat.images.shards import Shard
from tlfeat.records import distribution_version
from tlfeat.system import lock_within
from tlfeat.types import OnProgress, Pixels, Rows, silent

#: In the folder of lists: what the driver wrote, by which a worker sees that it is the same folder.
TOKEN = "token"

#: Failures of a shard that are reported; the others are in its cache.
_N_FAILURES = 20

#: Between two looks at whose shard it is.
_LOOK_EVERY_S = 5.0

#: A network of 7 billion weights is written to a disk within this time.
_FETCH_S = 900.0

#: Of these a row depends; all nodes must have the same.
_PACKAGES = ("tlfeat", "openvino", "keras", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Kit:
    """What a worker needs beside its shards.

    Attributes
    ----------
    folder : Path
        Of the shards; absolute.
    token : str
        What stands in its `TOKEN`.
    images : ImageSet
        Without images: root, source and store.
    names : Names
    n_shards : int
    encoder : Encoder
        Not prepared.
    files : mapping of str to object
        Files that the encoder needs on each node, by their names, for `fetch`.
    origin : mapping
        As for `extract_rows`.
    """

    folder: Path
    token: str
    images: ImageSet
    names: Names
    n_shards: int
    encoder: Encoder
    files: Mapping[str, Any]
    origin: Mapping[str, Any]
    n_threads: int = 1
    is_compressed: bool = False
    known_in: Sequence[Path] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


# --- what travels ---------------------------------------------------------------------------------------------


def luggage(encoder: Encoder, on_progress: OnProgress = silent) -> tuple[Encoder, dict[str, Path]]:
    """Return an encoder that can be sent, and the files that it needs where it arrives, by name.

    That is the converted network, which is made here if it is not there; of what TensorFlow embeds, its weights. Files
    and folders that the encoder names are then looked for among those that came (`unpack`).
    """
    if not isinstance(encoder, KerasEncoder):
        return encoder, {}
    _ = encoder.fingerprint, encoder.input_size, encoder.batch_size  # known from here on, without the weights
    sent = copy.copy(encoder)
    sent.notes = []
    if (file := encoder.converted(on_progress)) is not None:
        sent.__dict__["_wanted_runtime"] = "openvino"
        return sent, {each.name: each for each in (file, file.with_suffix(".bin"))}
    sent.__dict__["_wanted_runtime"] = "tensorflow"
    spec = encoder.spec
    if spec.is_own_model:
        return sent, {Path(spec.backbone).name: Path(spec.backbone)}
    if spec.weights == "random" or spec.model_file is not None:
        return sent, {}
    if spec.hub is not None:
        from tlfeat.backbones.hub_fetch import weights_folder

        folder = weights_folder(spec.hub, spec.weights).path
        sent.spec = replace(spec, weights=folder.name)
        return sent, {f"{folder.name}/{each.name}": each for each in folder.iterdir() if each.is_file()}
    path = weights_file(spec)
    sent.spec = replace(spec, weights=path.name)
    return sent, {path.name: path}


def versions() -> dict[str, str]:
    """Return the versions on which rows depend."""
    return {name: distribution_version(name) for name in _PACKAGES}


def unpack(encoder: Encoder, files: Mapping[str, Any], fetch: Callable[[Any], Any], folder: Path) -> Encoder:
    """Return the encoder with what travelled, written to `folder` by the first worker of a node that comes.

    Parameters
    ----------
    encoder : Encoder
        As `luggage` gave it.
    files : mapping of str to object
    fetch : callable
        From such an object to the bytes of the file.
    folder : Path
        Of this node alone, and of these files alone.
    """
    if not isinstance(encoder, KerasEncoder) or not files:
        return encoder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as held:
        lock_within(held.fileno(), _FETCH_S, is_exclusive=True)
        for name, sent in files.items():
            path = folder / name
            if not path.exists() or (path.suffix == ".xml" and not is_converted(path)):
                path.parent.mkdir(exist_ok=True)
                aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                with aside.open("wb") as written:
                    written.write(fetch(sent))
                aside.replace(path)
    arrived = copy.copy(encoder)
    arrived.networks_dir = folder
    spec = encoder.spec
    here = {name.partition("/")[0] for name in files}
    if spec.is_own_model and Path(spec.backbone).name in here:
        arrived.spec = replace(spec, backbone=str(folder / Path(spec.backbone).name))
    elif spec.weights in here:
        arrived.spec = replace(spec, weights=str(folder / spec.weights))
    return arrived


def node_folder() -> Path:
    """Return a folder of this node and this user alone, for files that travelled."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"tlfeat-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if folder.is_symlink() or (hasattr(os, "getuid") and (about.st_uid != user or about.st_mode & 0o077)):
        raise CacheError(f"{folder} is not a folder of this user alone. Remove it, or set TMPDIR to another place.")
    return folder


# --- images that may kill -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _NotedImages(ImageSet):
    """Images whose reading is noted; some are not read at all."""

    note: Callable[[str], None] = field(default=lambda path: None, compare=False)
    skipped: Mapping[str, str] = field(default_factory=dict, compare=False)

    def content(self, i: int) -> Callable[[], bytes]:
        path, content = self.paths[i], ImageSet.content(self, i)

        def read() -> bytes:
            if path in self.skipped:
                raise BadImage(self.skipped[path])
            self.note(path)
            return content() if callable(content) else read_file(content)

        return read


class _NotedEncoder:
    """An encoder that notes when an image has been decoded, too."""

    def __init__(self, encoder: Encoder, note: Callable[[str], None]) -> None:
        self._encoder, self._note = encoder, note
        self._own_decode = getattr(encoder, "decode", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def decode(self, data: bytes) -> Pixels:
        try:
            if self._own_decode is not None:
                return self._own_decode(data)  # type: ignore[no-any-return]
            return decode_bytes(data, self._encoder.input_size, self._encoder.resize)
        finally:
            self._note("")

    def encode(self, items: Any) -> dict[str, Rows]:
        return self._encoder.encode(items if self._own_decode is not None else np.stack(items))


class _Stopped(KeyboardInterrupt):
    """Raised where Ctrl-C would be: `extract_rows` keeps what is done and says so."""


# --- the worker -----------------------------------------------------------------------------------------------


class ShardWorker:
    """Works on one shard after another; `progress` and `stop` may be called from another thread.

    Parameters
    ----------
    kit : Kit
    fetch : callable
        From a value of ``kit.files`` to the bytes of the file.
    """

    def __init__(self, kit: Kit, fetch: Callable[[Any], Any]) -> None:
        self._kit = kit
        self._nothing = pickle.dumps(kit.images)  # a store of its own for each shard: it asks for stamps once
        self._encoder: Encoder | None = None
        self._fetch = fetch
        self._at = ("", 0)  # mark of the deal, images done
        self._stopping = threading.Event()
        self._cpu_s = time.process_time()  # Python has started by now

    def problem(self) -> str:
        """Return why this worker cannot take part; "" where it can."""
        kit, where = self._kit, platform.node()
        try:
            token = (lists_in(kit.folder) / TOKEN).read_text(encoding="utf-8")
        except OSError:
            token = ""
        if token != kit.token:
            return f"the node {where} does not see {kit.folder}. --cache must be on storage that all nodes share"
        if kit.images.store is None and not kit.images.root.exists():
            return (
                f"the node {where} does not see {kit.images.root}. The images must be on storage that all nodes share"
            )
        here = versions()
        if other := [
            f"{name} {here[name]}, not {version}" for name, version in kit.versions.items() if version != here[name]
        ]:
            return f"the node {where} has {' and '.join(other)}: rows could differ. Install the same versions"
        return ""

    def work(self, deal: Deal) -> Outcome:
        """Bring the cache of a shard up to date."""
        self._at = (deal.mark, 0)
        try:
            outcome = self._outcome(deal, self._extract(deal))
        except TlfeatError as error:
            outcome = Outcome(deal.number, kind=type(error).__name__, error=str(error))
        cpu_s = time.process_time()
        outcome, self._cpu_s = replace(outcome, cpu_s=cpu_s - self._cpu_s), cpu_s
        return outcome

    def progress(self) -> tuple[str, int]:
        """Return the mark of the deal that goes on, and how many of its images are done."""
        return self._at

    def stop(self) -> None:
        """Let the deal that goes on end soon; what is done is kept."""
        self._stopping.set()

    def _extract(self, deal: Deal) -> ExtractReport:
        kit = self._kit
        shard = Shard(deal.number, kit.n_shards)
        images = read_list(kit.folder, shard, pickle.loads(self._nothing), kit.names)
        if self._encoder is None:
            folder = node_folder() / workspace.digest({**kit.encoder.fingerprint, "files": sorted(kit.files)}, 16)
            self._encoder = unpack(kit.encoder, kit.files, self._fetch, folder)
        mark = lists_in(kit.folder) / deal.mark
        owner = lists_in(kit.folder) / f"{shard.file_name}.owner"
        with UnderWay(mark) as under_way:
            owner.write_text(deal.mark, encoding="utf-8")
            encoder: Any = _NotedEncoder(self._encoder, under_way.note)
            fields = {each.name: getattr(images, each.name) for each in dataclasses.fields(ImageSet)}
            noted = _NotedImages(**fields, note=under_way.note, skipped=deal.skipped)
            path = kit.folder / shard.file_name
            report = extract_rows(
                noted,
                encoder,
                path,
                n_threads=1 if deal.is_careful else kit.n_threads,
                is_compressed=kit.is_compressed,
                origin=kit.origin,
                known_in=kit.known_in,
                is_whole=False,
                on_progress=self._progress(deal, len(images), owner),
            )
            if deal.with_reference and report.n_embedded:
                embed_reference(self._encoder, path)
        return report

    def _progress(self, deal: Deal, n_images: int, owner: Path) -> OnProgress:
        """Return what takes the progress of an extraction; it also ends one that was stopped, or is another's."""
        due_s = time.monotonic() + _LOOK_EVERY_S

        def take(what: str, done: int, total: int) -> None:
            nonlocal due_s
            if self._stopping.is_set():
                raise _Stopped
            if what == "embedding":
                self._at = (deal.mark, n_images - total + done)
            if (now_s := time.monotonic()) >= due_s:
                due_s = now_s + _LOOK_EVERY_S
                if owner.exists() and owner.read_text(encoding="utf-8") != deal.mark:
                    raise CacheLocked(f"Shard {deal.number} was dealt to another worker.")

        return take

    def _outcome(self, deal: Deal, report: ExtractReport) -> Outcome:
        return Outcome(
            number=deal.number,
            n_images=report.n_images,
            n_embedded=report.n_embedded,
            n_known=report.n_known,
            n_failed=len(report.failures),
            failures=report.failures[:_N_FAILURES],
            runtime=report.runtime,
            notes=report.notes,
            cpu_s=0.0,
        )
