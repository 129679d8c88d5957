"""Work in a process of its own, with limits on time and memory.

Standard library only: the peers' environments have no edgekit.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def in_own_process(work: Callable[[], T], seconds: float, gigabytes: float) -> T | tuple[str, str]:
    """What `work` returns, or `(outcome, reason)` where it does not: fault, crash, timeout or memory.

    Args:
        work: Called in a fork of this process, without standard output.
        seconds: Of wall-clock time.
        gigabytes: Of resident memory.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryFile() as errors:
        process = context.Process(target=_work, args=(work, theirs, errors.fileno()), daemon=False)
        process.start()
        theirs.close()
        end = time.monotonic() + seconds
        try:
            while not ours.poll(0.05):
                if time.monotonic() > end:
                    return "timeout", f"not done after {seconds:.0f} s"
                if _resident(process.pid) > gigabytes * 2**30:
                    return "memory", f"more than {gigabytes:.0f} GB"
            succeeded, value = ours.recv()
        except EOFError:
            process.join()
            return "crash", f"the process ended with {process.exitcode}{_last_words(errors.fileno())}"
        finally:
            process.kill()
            process.join()
            ours.close()
    return value if succeeded else ("fault", value)


def told(error: BaseException) -> str:
    """The exception on one line, with the place that raised it."""
    trace, place = error.__traceback__, ""
    while trace:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' · '.join(lines)[:600]} ({place})"


def _work(work: Callable[[], object], channel: multiprocessing.connection.Connection, errors: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    try:
        channel.send((True, work()))
    except (Exception, SystemExit) as error:
        channel.send((False, told(error)))


def _last_words(errors: int) -> str:
    """The last line that a process wrote to its standard error."""
    size = os.fstat(errors).st_size
    lines = os.pread(errors, 4000, max(0, size - 4000)).decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[:200]}" if lines else ""


def _resident(pid: int | None) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0
