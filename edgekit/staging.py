"""A folder that appears whole or not at all."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import PackageError

_STALE_SECONDS = 24 * 3600


@contextmanager
def staged(folder: Path, *, replaceable: Callable[[Path], None]) -> Iterator[Path]:
    """Give an empty folder to write in; it becomes `folder` when the block ends without an error.

    The staging folder lies beside `folder` (`.NAME.edgekit-HOST-PID-RANDOM`), so that the last step is one rename on one file
    system. Files are flushed to the disk before it. Where `folder` exists, both are exchanged in one step (`renameat2` on Linux,
    `renamex_np` on macOS), so at every moment the old or the new folder is there; on systems without such a call there is a
    moment between two renames when it is absent, and its content lies in `.NAME.edgekit-HOST-PID-RANDOM.old`. Any error, and
    Ctrl-C, removes the staging folder; what a killed process leaves is removed by the next one.

    Args:
        folder: Where the result goes; missing parents are made.
        replaceable: Called with an existing `folder`, first and again just before replacing: raises where it must stay.

    Raises:
        PackageError: The place is not writable, or the disk is full.
    """
    folder = Path(os.path.realpath(folder))
    stage = folder.parent / f".{folder.name}.edgekit-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        with writing(folder):
            if folder.exists():
                replaceable(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder)
            # mkdir and not mkdtemp: a package has the permissions that the user's umask gives, not 0700.
            stage.mkdir()
        yield stage
        with writing(folder):
            _flush(stage)
            if folder.exists():
                replaceable(folder)
                _exchange(stage, folder)
            else:
                os.rename(stage, folder)
            _flush_folder(folder.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty: the export was written
            for parent in made:
                parent.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell an OSError of the block as a PackageError: it is about where the package goes."""
    try:
        yield
    except OSError as error:
        raise PackageError(
            f"the package cannot be written: {error.strerror or error}",
            where=str(error.filename or path),
            fix="choose a folder that you may write to, on a disk with space, with -o",
        ) from error


def _remove_stale(folder: Path) -> None:
    """Remove what killed processes left. A stage whose process lives belongs to an export that is going on."""
    for left in sorted(folder.parent.iterdir()):
        if not left.name.startswith(f".{folder.name}.edgekit-") or _is_in_use(left):
            continue
        if left.name.endswith(".old") and not folder.exists():
            os.rename(left, folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_in_use(left: Path) -> bool:
    """Whether the process that a stage is named after may still write it. Only on this host can that be seen; a stage of another
    one (a shared disk, a container) is left alone for a day."""
    host, _, process = left.name.partition(".edgekit-")[2].rpartition("-")[0].rpartition("-")
    if host != _host() or not process.isdigit() or sys.platform == "win32":  # os.kill(pid, 0) would end the process there
        return time.time() - left.stat().st_mtime < _STALE_SECONDS
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    return re.sub(r"\W", "_", platform.node())


def _flush(stage: Path) -> None:
    for path in sorted(stage.iterdir()):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    _flush_folder(stage)


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there, and renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(stage: Path, folder: Path) -> None:
    """`stage` takes the place of `folder`, and the other way round."""
    if _swap(stage, folder):
        return
    old = stage.with_name(stage.name + ".old")
    os.rename(folder, old)
    try:
        os.rename(stage, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _swap(a: Path, b: Path) -> bool:
    """Exchange two paths in one step; False where the system or the file system cannot."""
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return library.renamex_np(os.fsencode(a), os.fsencode(b), 2) == 0  # RENAME_SWAP
    if hasattr(library, "renameat2"):
        at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
        return library.renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0
    return False
