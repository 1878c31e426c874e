"""The archives that tensorflow-datasets' data sets are prepared from, and what their publishers say about them."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from camjax.data._tfds import checksums, tfds
from camjax.data.tar_files import open_tar
from camjax.errors import InputError, reading


@dataclass(frozen=True)
class Published:
    """What its publishers say about a data set.

    Attributes:
      counts: the number of examples of each split.
      optional: splits that may be absent.
      unpacked: whether tfds' builder unpacks the archives.
    """

    counts: dict[str, int]
    optional: frozenset[str] = frozenset()
    unpacked: bool = False


# Wah et al. 2011, "The Caltech-UCSD Birds-200-2011 dataset"; Russakovsky et al. 2015, table 2. ImageNet's test images
# have no labels, and few people have them.
_PUBLISHED = {
    "caltech_birds2011": Published({"train": 5_994, "test": 5_794}, unpacked=True),
    "imagenet2012": Published({"train": 1_281_167, "validation": 50_000, "test": 100_000}, frozenset({"test"})),
}


def base_name(name: str) -> str:
    """The name of a data set without its configuration and version: "imagenet2012:5.1.0" -> "imagenet2012"."""
    return name.split("/")[0].split(":")[0]


def published(name: str) -> Published | None:
    """What the publishers say about a data set; None for most."""
    return _PUBLISHED.get(base_name(name))


@dataclass(frozen=True)
class Archive:
    """One archive: its name, its published size in bytes, its address, and its file on disk, if it is there."""

    name: str
    size: int
    url: str
    path: Path | None

    @property
    def actual_size(self) -> int:
        """The size of the file on disk, or else the published one."""
        return self.path.stat().st_size if self.path else self.size

    def __str__(self) -> str:
        return f"{self.name}  {readable_size(self.size)}  {self.url}"


@dataclass(frozen=True)
class Archives:
    """The archives of a data set, as tfds lists them, and which of them are in a folder.

    Attributes:
      instructions: how to fetch them, if that needs a login; None if tfds downloads them.
    """

    dataset: str
    folder: Path
    instructions: str | None
    files: tuple[Archive, ...]

    @classmethod
    def find(cls, dataset: str, folder: Path) -> "Archives":
        """Finds the archives that tfds lists for a data set, and looks for them in the folder."""
        builder = tfds.builder_cls(base_name(dataset))
        files: dict[str, Archive] = {}
        for url, info in sorted((builder.url_infos or {}).items()):  # of several addresses, the first
            name = file_name(url, info)
            path = folder / name
            files.setdefault(name, Archive(name, int(info.size), url, path if path.is_file() else None))
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        return cls(dataset, folder, instructions and textwrap.dedent(instructions).strip(), tuple(files.values()))

    @property
    def present(self) -> list[Archive]:
        """The archives that are in the folder."""
        return [file for file in self.files if file.path]

    @property
    def missing(self) -> list[Archive]:
        """The archives that are not."""
        return [file for file in self.files if not file.path]

    def check_complete(self, *, download: bool, verify: bool) -> None:
        """Raises FileNotFoundError, which lists the missing archives, if those cannot be downloaded.

        Only data sets that are `published` are checked: for others, tfds may list files that their builders do not use.

        Args:
          download: whether missing archives may be downloaded.
          verify: False accepts some of the archives, if tfds' builder does.
        """
        enough = bool(self.present) and not verify and self.instructions
        if not published(self.dataset) or not self.missing or enough or (download and not self.instructions):
            return
        lines = [f"data set {self.dataset!r}: archives are missing in {self.folder}:"]
        if self.instructions:
            lines += [f"  {file.name}  {readable_size(file.size)}" for file in self.missing]
            lines += [self.instructions, "Put them there, or give their folder as --archives DIR."]
            if self.present:
                lines.append("With --unverified, the archives in the folder are prepared without the others.")
        else:
            lines += [f"  {file}" for file in self.missing]
            lines.append("Fetch them, or leave out --archives to have them downloaded.")
        raise FileNotFoundError("\n".join(lines))

    def check_sizes(self) -> None:
        """Raises ValueError for a file on disk that has not the published size.

        tfds compares checksums, but not of ImageNet's archives, and only after hours of work.
        """
        for file in self.present:
            if file.actual_size != file.size:
                raise InputError(
                    f"{file.path} has {file.actual_size:,} bytes; expected {file.size:,}. A smaller file is an "
                    "incomplete download: fetch it again. For a subset, or a copy that was packed again, give "
                    "--unverified"
                )

    def check_validation_names(self) -> None:
        """Raises ValueError unless the n-th name in ImageNet's validation archive is that of the n-th image.

        tfds gives the n-th label to the n-th name in alphabetical order, even if the name has another number.
        """
        path = self.folder / "ILSVRC2012_img_val.tar"
        if base_name(self.dataset) != "imagenet2012" or not path.is_file():
            return
        with reading(path, "a tar archive", "Fetch it again."), open_tar(path, "r:") as tar:
            names = sorted(tar.getnames())
        for number, name in enumerate(names, 1):
            if name != (expected := f"ILSVRC2012_val_{number:08}.JPEG"):
                raise InputError(
                    f"{path}: entry {number} in alphabetical order is {name!r}; expected {expected!r}. tfds gives "
                    "labels by this order: all images from this one on would get wrong ones. Pack the first images of "
                    "the split, without folders"
                )

    def needed_space(self) -> dict[str, int]:
        """About how many bytes preparing takes: {"downloads", "unpacked", "prepared"}, or {} if that is not known."""
        known = published(self.dataset)
        if known is None:
            return {}
        # Records hold the JPEG and PNG files of the archives. tfds sorts them in temporary files, then deletes those.
        used = self.present if self.instructions else self.files
        prepared = sum(file.actual_size for file in used)
        return {
            "downloads": 0 if self.instructions else sum(file.size for file in self.missing),
            "unpacked": prepared * known.unpacked,
            "prepared": round(1.1 * prepared),
        }


def file_name(url: str, info: checksums.UrlInfo) -> str:
    """The name of the file at an address in tfds' list."""
    return info.filename or url.rsplit("/", 1)[-1]


def readable_size(size: int) -> str:
    """Formats a number of bytes: 147897477120 -> "147.9 GB", 39272883 -> "39.3 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
