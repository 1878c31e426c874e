"""`camjax app`: a page in the browser for one's own pictures, and for what `evaluate` and `annotate` found."""

import functools
import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from camjax.addresses import as_path
from camjax.cli.network_choice import network_choice
from camjax.cli.options import Flag, OptionalFolder, Weights, arg
from camjax.errors import InputError, require_extra

if TYPE_CHECKING:
    from camjax.models import CamModel

MAX_EXAMPLES = 24
SCIKIT_IMAGE = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")


def app(
    shown: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="OUT|RUN...", help_behavior_hint="")
    ] = (),
    /,
    *,
    port: Annotated[int, tyro.conf.arg(metavar="P")] = 7860,
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1",
    model: Annotated[str | None, arg("NAME|RUN", default=False)] = None,
    weights: Weights = None,
    trust: Flag = False,
    examples: OptionalFolder = None,
) -> None:
    """Open a page for the browser: maps and boxes of your own pictures, and what evaluate or annotate found.

    Needs the extra "app": pip install "camjax[app]". Nothing leaves this machine, and nothing comes from elsewhere.

    Args:
      shown: Runs to offer as networks, and directories that `camjax evaluate` or `camjax annotate` wrote.
      port: Of the address that you open in the browser; 0 takes a free one.
      host: Where the page can be opened: 127.0.0.1 on this machine only, 0.0.0.0 on every machine that reaches it.
      model: A network of `camjax models`, a run, or MODULE:NAME, to offer first.
      weights: Its weights: a file (.pth, .safetensors, ...), an address, or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      examples: A folder of pictures to offer; without it, scikit-image's photographs if they are installed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: expected 0..65535; 0 takes a free one.")
    require_extra("app", "camjax app", "starlette", "uvicorn")
    from camjax.app.results import open_results
    from camjax.app.server import Content, Server
    from camjax.cli.compilation_cache import keep_compiled_programs

    networks = _networks(model, weights, [path for path in shown if _is_run(path)], trust)
    results = [open_results(path) for path in shown if not _is_run(path)]
    content = Content(networks, _examples(examples), results)
    keep_compiled_programs()
    with _listening(host, port) as listening:
        number, port = listening.getsockname()[:2]
        local = ipaddress.ip_address(number).is_loopback
        name = f"[{host}]" if ":" in host else host
        print(f"The page is at http://{'localhost' if number in ('0.0.0.0', '::') else name}:{port}")
        if local:
            print(
                "It can be opened on this machine only, by everyone who uses it. From another one: "
                f"ssh -L {port}:{name}:{port} THIS_MACHINE."
            )
        else:
            print(
                f"camjax: warning: --host {host} lets everyone who reaches this machine open the page, without a "
                "password and unencrypted: to run its networks, and to see what it shows.",
                file=sys.stderr,
            )
        print("Ctrl-C ends it.", flush=True)
        Server(content, host).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket at the address; raises OSError with what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()  # Linux says only here that another process listens at this address
        except OSError:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise type(error)(
            f"--host {host} --port {port}: the page cannot be opened there ({error.strerror or error}). Give another "
            "--port, or --port 0 for a free one."
        ) from error


def _networks(
    model: str | None, weights: str | None, runs: Sequence[Path], trust: bool
) -> dict[str, Callable[[], "CamModel"]]:
    """Title -> what loads the network: those named on the command line, then those whose weights are installed."""
    from camjax.loading import load_model
    from camjax.models import list_models, model_spec

    loaders: dict[str, Callable[[], CamModel]] = {}
    if model is not None or weights is not None:
        name, source = network_choice(model, weights)
        title = name if source is None else f"{name}, {source}"
        loaders[title] = functools.partial(load_model, name, source, trust=trust)
        loaders[title]()  # what is wrong with it is said now
    for run in runs:
        loaders[str(run)] = functools.partial(load_model, run, trust=trust)
    for name in list_models():
        if model_spec(name).installed:
            loaders.setdefault(name, functools.partial(load_model, name))
    return loaders


def _is_run(path: Path) -> bool:
    return (as_path(path) / "run.json").is_file()


def _examples(folder: Path | None) -> dict[str, Callable[[], bytes]]:
    """Name -> what reads the file: of a folder, or of scikit-image's photographs."""
    from camjax.data.image_files import find_images

    if folder is None:
        try:
            import skimage
        except ImportError:
            return {}
        folder = Path(skimage.__file__).parent / "data"
        names = [name for name in SCIKIT_IMAGE if (folder / name).is_file()]
    elif not folder.is_dir():
        raise FileNotFoundError(f"--examples {folder} is not a folder: expected a folder of pictures.")
    else:
        names = find_images(folder)
        if not names:
            raise InputError(f"--examples {folder} has no pictures: expected files that end in .jpg, .png, ...")
        if len(names) > MAX_EXAMPLES:
            print(f"The page offers the first {MAX_EXAMPLES} of the {len(names)} pictures in {folder}.")
    return {name: (folder / name).read_bytes for name in names[:MAX_EXAMPLES]}
