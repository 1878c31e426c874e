"""Weights from an address: `hf://` through huggingface_hub, and `https://` into camjax's own cache directory.

A cached file is used without asking the network.
"""

import contextlib
import hashlib
import os
import re
import warnings
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from filelock import FileLock

from camjax.errors import InputError, printable, require_extra
from camjax.weights.download import FetchError, download
from camjax.weights.errors import WeightsError
from camjax.weights.readers import HUB_FILES, read_tensors

# The names of torchvision's and timm's files end in the first digits of their SHA-256: resnet50-0676ba61.pth.
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


def fetch(address: str) -> Path:
    """The local file of an address, downloaded if it is not in the cache.

    Args:
      address: one of

        - `hf://OWNER/NAME[@REVISION][/FILE]`, a model repository on the Hugging Face Hub; without FILE its
          `model.safetensors`, or else `pytorch_model.bin` or `open_clip_model.safetensors`. The grammar, the cache,
          `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are huggingface_hub's. The SHA-256 is checked if the
          Hub sends it. The `config.json` of the file's folder, if there is one, is fetched too and lies beside it.
        - `https://HOST/.../FILE[#sha256=DIGITS]`, kept below `cache_directory()`. The SHA-256 is checked if it is
          known: from the 64 digits after `#sha256=`, or from a name that ends in at least 8 digits of it, as
          torchvision's do. A download that breaks off resumes where it stopped, at once or at the next call.
          `http://` is read too. Anyone on the way can change such a file, so give its SHA-256 if it is known.

        Where no SHA-256 is known, a file is kept only if it reads as weights of its format.

    Returns:
      The path of the file in the cache; do not change the file.

    Raises:
      ValueError: another scheme, or an address that is not of these forms.
      FetchError: it cannot be fetched; the message says why.
      ImportError: an hf:// address, and huggingface_hub is not installed.
      WeightsError: the downloaded file has another SHA-256, or is no whole file of weights. It is not kept.
    """
    match urlsplit(address).scheme.lower():
        case "hf":
            path, repository = _fetch_from_hub(address)
            _fetch_config(address, path, repository)
            return path
        case "https" | "http":
            return _fetch_from_web(address)
    raise InputError(f"{address}: expected an address that begins with hf:// or https://, or the path of a file.")


def cache_directory() -> Path:
    """Where files from `https://` addresses are kept: `$XDG_CACHE_HOME/camjax/weights`, or else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "camjax", "weights").expanduser()


def _fetch_from_hub(address: str) -> tuple[Path, str]:
    """The path of the weights, and the repository OWNER/NAME."""
    require_extra("hub", f"{address}: the Hugging Face Hub", "huggingface_hub")
    import huggingface_hub as hub

    try:
        place = hub.parse_hf_uri(address)
    except ValueError as error:
        raise InputError(f"{address}: expected hf://OWNER/NAME[@REVISION][/FILE] ({error})") from None
    if place.type != "model":
        raise InputError(f"{address}: expected a model, hf://OWNER/NAME[@REVISION][/FILE], and this is a {place.type}.")
    names = (place.path_in_repo,) if place.path_in_repo else HUB_FILES
    for name in names:
        cached = hub.try_to_load_from_cache(place.id, name, revision=place.revision)
        if isinstance(cached, str):
            return Path(cached), place.id
    for name in names:
        path = _download_from_hub(address, place.id, name, place.revision)
        if path is not None:
            return path, place.id
    hint = f" A revision comes after the repository: hf://{place.id}@REVISION/FILE." if "@" in names[0] else ""
    raise FetchError(f"{address}: the repository has no file {' or '.join(names)}.{hint}")


def _download_from_hub(address: str, repository: str, name: str, revision: str | None) -> Path | None:
    """The file in the Hub's cache, after its download; None if the repository has no such file."""
    import huggingface_hub as hub
    from huggingface_hub import errors as hub_errors

    try:
        # Without a network, the download would retry for half a minute; this question fails at once.
        known = hub.get_hf_file_metadata(hub.hf_hub_url(repository, name, revision=revision))
        path = Path(hub.hf_hub_download(repository, name, revision=revision))
    except hub_errors.RemoteEntryNotFoundError:
        return None
    except hub_errors.GatedRepoError:
        why = "the repository asks for an agreement first: accept it on its page, and set HF_TOKEN"
    except hub_errors.RepositoryNotFoundError:
        why = "the repository does not exist or is private: check the name, and set HF_TOKEN for a private one"
    except hub_errors.RevisionNotFoundError:
        why = f"the repository has no revision {revision!r}"
    except hub_errors.OfflineModeIsEnabled:
        why = "it is not in the cache, and HF_HUB_OFFLINE keeps huggingface_hub from the network"
    # Anything that the library's HTTP client raises: its exceptions are not part of the library's interface.
    except Exception as error:
        why = f"the Hugging Face Hub cannot be reached, and the file is not in the cache ({_first_line(error)})"
    else:
        # The Hub's ETag of a large file is its SHA-256; of small files, Git's SHA-1.
        is_digest = re.fullmatch("[0-9a-f]{64}", known.etag or "")
        _check(address, path, name, is_digest[0] if is_digest else "")
        return path
    raise FetchError(f"{address}: {why}.")


def _fetch_config(address: str, weights: Path, repository: str) -> None:
    """Puts the `config.json` of the same commit and folder beside the weights, if the repository has one."""
    import huggingface_hub as hub
    from huggingface_hub import errors as hub_errors

    snapshot = next(folder for folder in weights.parents if folder.parent.name == "snapshots")
    name, commit = weights.with_name("config.json").relative_to(snapshot).as_posix(), snapshot.name
    if hub.try_to_load_from_cache(repository, name, revision=commit) is not None:
        return  # it is there, or it is known that there is none
    try:
        # As in `_download_from_hub`. The library's own download notes that there is no such file.
        with contextlib.suppress(hub_errors.RemoteEntryNotFoundError):
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, name, revision=commit))
        hub.hf_hub_download(repository, name, revision=commit)
    except hub_errors.RemoteEntryNotFoundError:
        pass
    except Exception as error:
        warnings.warn(
            f"{address}: its {name}, which says how images are normalized, cannot be fetched ({_first_line(error)}). "
            "The network's own rule holds.",
            stacklevel=2,
        )


def _fetch_from_web(address: str) -> Path:
    url, fragment = urldefrag(address)
    name = Path(unquote(urlsplit(url).path)).name
    if name in ("", "..") or not urlsplit(url).hostname:
        raise InputError(f"{address}: expected the address of a file, https://HOST/.../FILE[#sha256=DIGITS].")
    expected = _expected_digest(address, name, fragment)
    # Files of one name at different addresses are different files.
    path = cache_directory() / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if _is_complete(path, expected):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{name}.lock")):
        if not _is_complete(path, expected):  # another process may have fetched it meanwhile
            part = path.with_name(f"{name}.part")
            download(url, part)
            _check(address, part, name, expected)
            part.replace(path)
    return path


def _expected_digest(address: str, name: str, fragment: str) -> str:
    """The expected SHA-256 of a file, or its first digits; empty if nothing is known."""
    if fragment:
        match = re.fullmatch("sha256=([0-9A-Fa-f]{64})", fragment)
        if match is None:
            raise InputError(f"{address}: expected #sha256= and 64 hexadecimal digits after the address, or nothing.")
        return match[1].lower()
    match = _DIGEST_IN_NAME.search(name)
    return match[1] if match else ""


def _is_complete(path: Path, expected: str) -> bool:
    """Whether the cache has the file. A download gets its name when it is complete; the digest tells a changed file."""
    return path.is_file() and (not expected or _sha256(path).startswith(expected))


def _check(address: str, path: Path, name: str, expected: str) -> None:
    """Deletes a downloaded file that is not what it should be, and raises WeightsError.

    Without a SHA-256 (`expected` is ""), the file has to read as weights: what came may have been cut short, or a page
    that says why it did not come.
    """
    try:
        if not expected:
            read_tensors(path, name)
        elif not (found := _sha256(path)).startswith(expected):
            raise WeightsError(_wrong_digest(address, found, expected))
    except WeightsError as error:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        if expected:
            raise
        why = str(error).removeprefix(f"{path}: ")
        raise WeightsError(f"{address}: what came is no whole file of weights, and was not kept: {why}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_digest(address: str, found: str, expected: str) -> str:
    dots = "" if len(expected) == 64 else "..."
    return (
        f"{address}: the downloaded file has SHA-256 {found}, expected {expected}{dots}. It is damaged, or another "
        f"file, and was not kept. Try again. If the web address is right nevertheless, put #sha256={found} after it."
    )


def _first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."))
