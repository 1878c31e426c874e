"""Keeps XLA's compiled programs on disk, so that a command compiles only at its first start."""

import os
import sys
from pathlib import Path

import jax

from camjax.addresses import is_address

# By default JAX does not keep what compiled in less than a second, as most of a command's programs do.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep_compiled_programs() -> Path | None:
    """Turns on JAX's persistent compilation cache for this process.

    The directory is `$JAX_COMPILATION_CACHE_DIR` if set, else `$XDG_CACHE_HOME/camjax/xla`, else
    `~/.cache/camjax/xla`. JAX's environment variables take precedence. If the directory is not writable, the
    command prints a warning, and compiles at every start.

    Returns:
      The directory beside the compiled programs for `camjax.cli.kept_programs`; None where nothing can be kept, or only
      in a bucket.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "camjax", "xla")
        try:
            directory = directory.expanduser()
            directory.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: the home directory is unknown
            _report(directory, error)
            return None
        if not os.access(directory, os.W_OK):
            _report(directory, "no permission to write")
            return None
        jax.config.update("jax_compilation_cache_dir", str(directory))
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    kept = str(jax.config.values["jax_compilation_cache_dir"])
    return None if is_address(kept) else Path(kept, "traced")


def _report(directory: Path, reason: object) -> None:
    print(
        f"camjax: compiled programs cannot be kept in {directory} ({reason}), so every start compiles again. Set "
        "JAX_COMPILATION_CACHE_DIR to a writable directory.",
        file=sys.stderr,
    )
