"""XLA's compiled programs kept on disk, so that a command compiles at its first start only."""

import os
import sys
from pathlib import Path

import jax

# A start compiles small programs too, and JAX leaves out by default what took less than a second to compile.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache, for this process.

    The directory is `$JAX_COMPILATION_CACHE_DIR` if set, else `$XDG_CACHE_HOME/camjax/xla`, else
    `~/.cache/camjax/xla`. Settings that the user made by JAX's environment variables stand. A directory that cannot
    be written is reported on stderr, and the command compiles at every start.
    """
    if not jax.config.jax_compilation_cache_dir:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "camjax", "xla")
        try:
            directory = directory.expanduser()
            directory.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory is known
            return _report(directory, error)
        if not os.access(directory, os.W_OK):
            return _report(directory, "no permission to write")
        jax.config.update("jax_compilation_cache_dir", str(directory))
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return None


def _report(directory: Path, reason: object) -> None:
    print(
        f"camjax: compiled programs cannot be kept in {directory} ({reason}), so every start compiles anew; set "
        "JAX_COMPILATION_CACHE_DIR to a directory that can be written.",
        file=sys.stderr,
    )
