"""What edgekit says when something is wrong: what, where, and what to do about it."""

from __future__ import annotations


class EdgekitError(Exception):
    """A mistake or a limit that a user can act on.

    Args:
        what: One sentence that names what is wrong.
        where: The node, tensor, file or option it was found at.
        fix: What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


class SourceError(EdgekitError):
    """The source model cannot be read, run, or turned into ONNX."""


class UntrustedSource(SourceError):
    """Reading the source would execute code that it carries, and the user has not allowed it."""


class InputError(EdgekitError):
    """An option, a shape, a dtype or a set of data does not fit the model."""


class TargetError(EdgekitError):
    """A target is unknown or its target.toml is wrong."""


class MissingExtra(EdgekitError):
    """An optional framework is needed and not installed."""


class CompileError(EdgekitError):
    """A graph cannot be expressed in LiteRT."""


class UnsupportedOperator(CompileError):
    """One node cannot be lowered: names the node, its operator and the attribute in the way."""


class QuantizeError(EdgekitError):
    """An artifact cannot be quantized as asked."""


class ArtifactError(EdgekitError):
    """An artifact does not load or does not run."""


class PackageError(EdgekitError):
    """A package cannot be written, read, or is not what its manifest says."""
