"""The loop of an annotation: every picture of a folder once, in parts that survive an interruption."""

import collections
import contextlib
import errno
import functools
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from camjax.addresses import as_path, is_address, local_path
from camjax.annotating import manifest, maps, overlays
from camjax.annotating.devices import make_find_fn
from camjax.annotating.finished import ClassNames, Finished
from camjax.annotating.formats import FORMATS
from camjax.annotating.manifest import Manifest
from camjax.annotating.options import Options
from camjax.annotating.parts import PICTURES, Parts, Shard, check_settings, settings_of
from camjax.annotating.pictures import UNREADABLE, Pictures, Places, find_pictures
from camjax.annotating.records import Found, Picture, picture_record
from camjax.attribution.methods import method_named
from camjax.class_names import class_id
from camjax.data.loader import Batch, eval_batches
from camjax.data.prefetching import overlapped
from camjax.errors import InputError
from camjax.models import CamModel
from camjax.outputs import BoundNetwork
from camjax.weights.fingerprint import weights_sha256

Progress = Callable[[int, int], None]
"""Called with the number of pictures done, and the number of all that this process annotates."""

_WAITING = 4
"""Batches that may wait to be written."""


def annotate_folder(
    model: CamModel | BoundNetwork,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Options,
    *,
    model_name: str = "",
    shard: tuple[int, int] | None = None,
    merge: bool = False,
    num_workers: int = 0,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> Manifest | None:
    """Writes where things are in the pictures of a folder and all below it.

    It uses all devices of all processes that `camjax.training.initialize` joined; each device takes whole batches, so
    that results do not depend on their number. An interrupted call is continued by the same call, and leaves the files
    of an uninterrupted one. Memory does not grow with the number of pictures, but for their names.

    Args:
      model: a classifier that has what the method needs, or an exported network by this method.
      folder: of pictures, in any of the formats of `camjax.data.image_files`.
      out: the folder of results, or an address of a bucket. Its files are those of
        `camjax.annotating.formats.FORMATS`, maps and overlays if asked for, and last the manifest.
      options: what to write.
      model_name: for the manifest.
      shard: (I, N): annotate the I-th of N shares of the pictures only, I from 0, without the files of all. Processes
        with different I work at the same time, on one or more machines that share `out`.
      merge: write the files of all from the shards, which have to be complete.
      num_workers: as in `camjax.data.eval_batches`.
      num_threads: as in `camjax.data.eval_batches`.
      progress: see `Progress`.

    Returns:
      The manifest; None for a shard.

    Raises:
      ValueError: options that do not fit the model, no pictures, `out` within `folder` or the other way around, or an
        annotation in `out` that has other settings, is in use, or lacks shards to merge; the message says which.
      OSError: no such folder, or `out` can't be written to. Finished parts are kept.
    """
    folder = Path(os.path.abspath(local_path(folder, "pictures in")))
    out = as_path(out) if is_address(out) else Path(os.path.abspath(out))
    if (shard or merge) and jax.process_count() > 1:
        raise InputError("shard and merge: processes that were joined share the work by themselves; leave them out.")
    if shard and merge:
        raise InputError("shard and merge: first all shards, then merge.")
    check_folders(folder, out)
    pictures = find_pictures(folder)
    find = make_find_fn(model, options)
    settings = settings_of(pictures, options, model_name, weights_sha256(model), version("camjax"))
    parts = Parts(out, settings, len(pictures), -(-PICTURES // options.batch_size) * options.batch_size)
    places, names = Places(pictures.names), class_names_of(model)
    with _writing(out):
        if (out / manifest.NAME).exists():
            return _complete(parts)
        mine = Shard(*shard) if shard else Shard(jax.process_index(), jax.process_count())
        if merge:
            parts.check_all_there()
        parts.open()
        if not merge:
            with parts.lock(mine):
                size = method_named(options.method).image_size(model)
                _compute(find, pictures, parts, mine, size, options, places, names, num_workers, num_threads, progress)
        if shard:
            return None
        if jax.process_index() > 0:
            _wait(lambda: (out / manifest.NAME).exists())
            return manifest.read(out)
        _wait(lambda: not parts.missing())
        with parts.lock(Shard(), finishing=True):
            _finish(parts, places, names, options)
        return _complete(parts)


def class_names_of(model: CamModel | BoundNetwork) -> ClassNames:
    """What the classes of a network are called in files."""
    names = model.class_names or [""] * model.num_classes
    ids = [str(i) for i in range(len(names))]
    return ClassNames(
        shown=[
            f"{name} ({i})" if names.count(name) > 1 and name else name or f"class {i}" for i, name in enumerate(names)
        ],
        read=[name if _means(name, i, names) else ids[i] for i, name in enumerate(names)],
    )


def _means(name: str, number: int, names: Sequence[str]) -> bool:
    """Whether a reader of the name takes it for this class."""
    if name != name.strip() or not name:
        return False
    if names.count(name) == 1:
        return True
    try:
        return class_id(name, names) == number
    except InputError:
        return False


def check_folders(folder: Path, out: Path) -> None:
    """Checks the folder of pictures and that of results, in no time; raises as `annotate_folder`."""
    local_path(folder, "pictures in")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected a folder of pictures.")
    if is_address(out):
        as_path(out)
        return
    real_folder, real_out = folder.resolve(), out.resolve()
    if real_out.is_relative_to(real_folder) or real_folder.is_relative_to(real_out):
        raise InputError(
            f"the folder of pictures {folder} and that of results {out} lie one in the other: expected two separate "
            "folders, since results may have pictures in them. Give another folder of results."
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: expected a folder of results, or a new name for one.")


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Says where it was that nothing could be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise OSError(
                f"{out} can't be written to ({error.strerror}). Make room or give permission, and start the same "
                "command again: it goes on where it stopped. Or give another folder of results."
            ) from error
        raise


def _wait(there: Callable[[], bool]) -> None:
    """Waits for what another process of the same run writes; if that one dies, JAX's runtime ends this one."""
    while not there():
        time.sleep(0.2)


class _Chosen:
    """The pictures of some parts, one after the other: a source."""

    def __init__(self, pictures: Pictures, parts: Parts, numbers: Sequence[int]):
        self._pictures, self._numbers, self._size = pictures, numbers, parts.size
        self._length = sum(len(parts.pictures_of(number)) for number in numbers)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        return self._pictures[self.place(index)]

    def place(self, index: int) -> int:
        """Where a picture is among all. Only the last part may be shorter than the others."""
        number, offset = divmod(index, self._size)
        return self._numbers[number] * self._size + offset


def _compute(
    find: Callable[..., Found],
    pictures: Pictures,
    parts: Parts,
    shard: Shard,
    size: tuple[int, int],
    options: Options,
    places: Places,
    names: ClassNames,
    num_workers: int,
    num_threads: int,
    progress: Progress | None,
) -> None:
    """Computes and writes the missing parts of a shard."""
    numbers = parts.missing(shard)
    total = sum(len(parts.pictures_of(part)) for part in range(parts.count) if shard.has(part))
    chosen = _Chosen(pictures, parts, numbers)
    done = total - len(chosen)
    if progress:
        progress(done, total)
    if not numbers:
        return
    writer = _Writer(chosen, pictures, parts, numbers, options, places, names)
    devices = itertools.cycle(jax.local_devices())
    with contextlib.ExitStack() as stack:
        batches = eval_batches(
            chosen,
            batch_size=options.batch_size,
            size=size,
            num_workers=num_workers,
            num_threads=num_threads,
            shard_index=0,
            shard_count=1,
        )
        stack.enter_context(contextlib.closing(batches))
        submit = stack.enter_context(_one_after_another(_WAITING))

        def start(batch: Batch) -> Found:
            return find(jax.device_put(batch["image"], next(devices)))

        for batch, found in overlapped(batches, start, ahead=len(jax.local_devices())):
            submit(functools.partial(writer.add, batch, jax.device_get(found)))
            done += int(batch["mask"].sum())
            if progress:
                progress(done, total)


@contextlib.contextmanager
def _one_after_another(waiting: int) -> Generator[Callable[[Callable[[], object]], None], None, None]:
    """Calls functions in a thread, in order; the first error is raised by a later call, or at the end."""
    futures: collections.deque[Future] = collections.deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def submit(function: Callable[[], object]) -> None:
        futures.append(pool.submit(function))
        while len(futures) > waiting or futures[0].done():
            futures.popleft().result()
            if not futures:
                break

    try:
        yield submit
        while futures:
            futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer:
    """Collects the pictures of a part, and writes each part that is complete."""

    def __init__(
        self,
        chosen: _Chosen,
        pictures: Pictures,
        parts: Parts,
        numbers: Sequence[int],
        options: Options,
        places: Places,
        names: ClassNames,
    ):
        self._chosen, self._pictures, self._parts, self._options = chosen, pictures, parts, options
        self._numbers = collections.deque(numbers)
        self._places, self._names = places, names
        self._records: list[Picture] = []
        self._maps: list[np.ndarray] = []

    def add(self, batch: Batch, found: Found) -> None:
        """Adds the pictures of a batch."""
        for row in np.flatnonzero(batch["mask"]).tolist():
            place = self._chosen.place(int(batch["index"][row]))
            name, orientation = self._pictures.names[place], int(batch["label"][row])
            if orientation == UNREADABLE:
                # Bytes of a name that are no text would be no JSON either.
                name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
                self._records.append(Picture(name, unreadable=self._pictures.why_unreadable(place)))
                continue
            height, width = batch["image_size"][row].tolist()
            record = picture_record(
                name, (height, width), orientation, found, row, self._options.thresholds, self._options.min_score
            )
            self._records.append(record)
            if self._options.maps and found.maps is not None:
                self._maps.append(np.asarray(found.maps[row]))
            if self._options.overlays and found.maps is not None:
                path = self._parts.out / overlays.FOLDER / f"{self._places(name)}.{self._options.format}"
                maps_of_picture = np.asarray(found.maps[row])
                overlays.write(
                    path, self._pictures, place, record, maps_of_picture, self._names.shown, self._options.drawing
                )
        if len(self._records) == len(self._parts.pictures_of(self._numbers[0])):
            part = self._numbers.popleft()
            if self._options.maps:
                maps.write_part(self._parts, part, self._records, self._maps)
            self._parts.write(part, self._records)
            self._records, self._maps = [], []


def _finish(parts: Parts, places: Places, names: ClassNames, options: Options) -> None:
    """Writes all files from the parts."""
    for folder in () if is_address(parts.out) else (parts.out, parts.out / maps.FOLDER):
        for draft in folder.glob("*.draft"):  # of a process that was killed
            draft.unlink()
    finished = Finished(parts.pictures, names, places)
    files: dict = {}
    for name, write in FORMATS.items():
        write(parts.out / name, finished)
        files[name.partition(".")[0]] = name
    if options.maps:
        files[maps.FOLDER] = maps.index(parts)
    if options.overlays:
        files[overlays.FOLDER] = overlays.FOLDER
    if hasattr(os, "sync"):
        os.sync()  # the small files, too, before the manifest says that they are there
    manifest.write(parts.out, parts.settings, finished, files)


def _complete(parts: Parts) -> Manifest:
    """The manifest of a finished annotation; ValueError if it is another one."""
    found = manifest.read(parts.out)
    check_settings(parts.out, found["settings"], parts.settings)
    parts.remove()
    return found
