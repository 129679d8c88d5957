"""The commands: parse, call, print."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edgekit import __version__
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgekit.export import Progress


def main() -> NoReturn:
    """Run a command and end with its exit code: 0 done and within the gates, 1 error, 2 a gate failed, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except EdgekitError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted: nothing was written", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error}\n  to do: this is a fault of edgekit: run it again with --debug and report it", 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Take a Keras, PyTorch or ONNX model to a phone or a Raspberry Pi, and prove that it is still the same model."""


def _common(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The options of every command."""
    command = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def _data_options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    for option in (
        click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Compare on at most N samples."),
        click.option(
            "--gate", "gates", multiple=True, metavar="GATE", help="int8.top1_agreement>=0.98, cosine>=0.999, fp16.cosine=off"
        ),
        click.option("--trust-source", is_flag=True, help="Allow code that the source carries to run."),
        click.option("--labels", metavar="FILE", help="The class of each sample: .npy, .csv or .txt."),
        click.option("--data", metavar="DATA", help="Real inputs to compare on: image folder, .npy, .npz, file.py:function."),
        click.option("--quiet", "-q", is_flag=True, help="No progress."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("source")
@click.option("--target", "-t", default="android", show_default=True, metavar="NAME|FOLDER", help="What `edgekit targets` lists.")
@click.option(
    "--precision",
    "-p",
    "precisions",
    multiple=True,
    metavar="LIST",
    help="fp32, fp16, int8, int8-dynamic …, or auto; by commas or repeated.",
)
@click.option("--format", "formats", multiple=True, metavar="LIST", help="Only these of the target's formats: tflite, onnx, ort.")
@click.option("--calibration", "-c", metavar="DATA", help="Real inputs for int8: image folder, .npy, .npz, file.py:function.")
@click.option("--max-drop", type=float, metavar="PERCENT", help="What auto may lose: points of accuracy, or changed answers.")
@click.option("--recipe", metavar="FILE", help="How to quantize: the recipe.toml of a package, edited.")
@click.option(
    "--search-minutes", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="N", help="Time for auto's search."
)
@click.option("--preprocess", metavar="STEPS", help="From a picture to an input: imagenet, tf, unit …, a file, or key=value,…")
@click.option("--classes", metavar="FILE", help="Class names for the manifest, one per line.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=SHAPE:DTYPE", help="Such as image=1x3x224x224:float32.")
@click.option("--dynamic", multiple=True, metavar="LIST", help="Dimensions to keep open, such as batch.")
@click.option("--output", "-o", metavar="FOLDER", help="The package.  [default: SOURCE-TARGET]")
@click.option("--force", is_flag=True, help="Replace a package although its folder holds other files.")
@_data_options
@_common
def export(source: str, as_json: bool, quiet: bool, **options: Any) -> int:
    """Make a verified package of a model.

    SOURCE is a .keras, .h5, SavedModel, .pt2, TorchScript or .onnx, or file.py:factory. A package that is already
    there is replaced.
    """
    for name in ("precisions", "formats", "dynamic"):
        options[name] = [part for text in options[name] for part in text.split(",") if part]
    with _working(quiet) as progress:
        from edgekit.export import export as run

        package = run(source, progress=progress, **options)
    if as_json:
        _print_json({"package": str(package.path), "verdict": package.verdict, "manifest": package.to_json()})
    else:
        from edgekit.report.terminal import package_table

        _print(package_table(package))
        click.echo(f"\n{package.verdict}: {package.path}")
    return package.verification.exit_code


@cli.command()
@click.argument("package")
@click.option("--source", metavar="MODEL", help="The model that the package was made of; needed for --data.")
@_data_options
@_common
def verify(package: str, as_json: bool, quiet: bool, **options: Any) -> int:
    """Compare a package's artifacts with its golden vectors, or with the source on other data."""
    with _working(quiet) as progress:
        from edgekit.package import load_package
        from edgekit.verify import verify as run

        verification = run(package, progress=progress, **options)
        loaded = load_package(package)
    if as_json:
        _print_json({"package": package, "verdict": verification.verdict, "verification": verification.to_json()})
    else:
        from edgekit.report.terminal import package_table

        _print(package_table(loaded, verification))
        click.echo(f"\n{verification.verdict}: {package}")
    return verification.exit_code


@cli.command()
@click.argument("model")
@click.option("--target", "-t", metavar="NAME|FOLDER", help="Also say what this target has against the model.")
@_common
def inspect(model: str, target: str | None, as_json: bool) -> None:
    """What is in a model file or a package: inputs, outputs, operators, sizes, precision. Runs no code from it."""
    from pathlib import Path

    from edgekit.inspect import inspect as run
    from edgekit.package import MANIFEST, load_package

    if (Path(model) / MANIFEST).is_file():
        package = load_package(model)
        if as_json:
            _print_json({"package": model, "verdict": package.verdict, "manifest": package.to_json()})
        else:
            from edgekit.report.terminal import contents_table

            _print(contents_table(package))
        return
    inspection = run(model)
    problems, asked = None, None
    if target is not None:
        from edgekit.targets import load_target

        asked = load_target(target)
        problems = asked.problems(
            inspection.file, inspection.format, inspection.bytes, inspection.operators, inspection.precision
        )
    if as_json:
        about = {} if asked is None else {"problems": problems, "unsupported": asked.to_json()["unsupported"]}
        _print_json(inspection.to_json() | about)
    else:
        from edgekit.report.terminal import inspection_table

        _print(inspection_table(inspection))
        if asked is not None:
            click.echo("\n".join(problems or ()) or f"{target} has nothing against it")
            click.echo("\n".join(f"{target} does not take {table}" for table in asked.unsupported))


@cli.command()
@click.argument("target", required=False)
@_common
def targets(target: str | None, as_json: bool) -> None:
    """The targets that edgekit ships, or one in full: a name, or a folder with a target.toml."""
    from edgekit.targets import list_targets, load_target

    found = list_targets() if target is None else [load_target(target)]
    if as_json or target is not None:
        _print_json({"targets": [t.to_json() for t in found]} if target is None else found[0].to_json())
    else:
        from edgekit.report.terminal import targets_table

        _print(targets_table(found))


@cli.command()
@_common
def doctor(as_json: bool) -> int:
    """What is installed, what each extra would add, and what this machine can run."""
    from edgekit.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        _print_json(diagnosis.to_json())
    else:
        from edgekit.report.terminal import doctor_table

        _print(doctor_table(diagnosis))
    return 0 if diagnosis.healthy else 1


@contextmanager
def _working(quiet: bool) -> Iterator[Progress | None]:
    """Progress on stderr where that is a terminal; what frameworks print goes there too, because stdout carries the result."""
    with redirect_stdout(sys.stderr):
        if quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total or None)


def _print(content: RenderableType) -> None:
    from rich.console import Console

    from edgekit.report.terminal import show

    show(Console(highlight=False), content)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False))


def _fail(message: str, code: int) -> NoReturn:
    if "--debug" in sys.argv:  # read here, because the command line itself may be what is wrong
        traceback.print_exc()
    click.echo(f"edgekit: {message}", err=True)
    sys.exit(code)


def _terminated(number: int, frame: Any) -> NoReturn:
    """SIGTERM ends like Ctrl-C does: through the blocks that remove what is unfinished."""
    raise KeyboardInterrupt
