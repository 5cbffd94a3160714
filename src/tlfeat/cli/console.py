"""How every command speaks: results to stdout, all else to stderr, errors as one line and an exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import json
import os
import select
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, get_type_hints

from tlfeat.cli.options import JsonOption, QuietOption, VerboseOption
from tlfeat.errors import DataError, TlfeatError, UsageError
from tlfeat.system import was_interrupted
from tlfeat.text import counted, in_words_of, one_line, printable, words_for, wrapped

INTERRUPTED_EXIT_CODE = 130

#: What the machine refuses, wherever it is met: rights, room, descriptors, a disk that fails. Never a bug.
_WORLD = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}

#: What packages say, as ImportError and RuntimeError, where they get no memory for their code or for a thread.
_WITHOUT_MEMORY = ("failed to map segment", "can't start new thread", "Cannot allocate memory")

#: For systems that do not say when a process started.
_IMPORTED_S = time.monotonic()

_SHOW_AFTER_S = 1.0

_PLAIN_EVERY_S = 10.0

_MAX_WARNINGS = 3

_LEAST_WIDTH = 40


def since_start_s() -> float:
    """Return the wall seconds since this process started, the start of Python included."""
    try:
        about = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        started_ticks = int(about.rpartition(")")[2].split()[19])  # starttime of proc(5)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # no Linux
        return time.monotonic() - _IMPORTED_S


class Console:
    """What one command says; a context manager that takes the progress bar away at the end.

    Parameters
    ----------
    is_json : bool
        stdout gets one JSON document and nothing else.
    is_quiet : bool
        stderr gets errors and nothing else.
    is_verbose : bool
        Details too.
    """

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.is_verbose = is_verbose
        self.progress = Progress(is_shown=not is_quiet)
        self._holds = "images"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.hide()

    def speak_of(self, holds: str, names: Sequence[str] = ()) -> None:
        """Say "texts" for "images" from now on, where there are texts; not where a class has such a name."""
        self._holds = words_for(holds, names)

    def say(self, *texts: str) -> None:
        """Tell the user something beside the result, each text on a line of its own."""
        for text in texts if not self.is_quiet else ():
            self.progress.hide()
            _to_stderr(wrapped(printable(in_words_of(self._holds, text)), self.width))

    @property
    def width(self) -> int | None:
        """Columns of the terminal, or of the variable COLUMNS; None where the output is a file or a pipe."""
        is_known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
        return max(_LEAST_WIDTH, shutil.get_terminal_size().columns) if is_known else None

    def detail(self, text: str) -> None:
        """Tell the user something that only ``-v`` asks for."""
        if self.is_verbose:
            self.say(text)

    def warn(self, *texts: str) -> None:
        """Tell the user what should not be missed: three things at most, the others with ``-v``."""
        told = texts if self.is_verbose else texts[:_MAX_WARNINGS]
        for text in told:
            self.say(f"warning: {text}")
        if len(texts) > len(told):
            self.say(f"and {counted(len(texts) - len(told), 'more warning')}: -v shows them")

    def result(self, text: str, document: object, *, is_prose: bool = True) -> None:
        """Give the result: `document` with ``--json``, else `text`; after a closed pipe nothing more is said.

        Prose is broken between words to the width of the terminal; CSV is not.
        """
        self.progress.hide()
        text = wrapped(printable(in_words_of(self._holds, text)), self.width) if is_prose else printable(text)
        out = json.dumps(document, indent=1) if self.is_json else text
        try:
            print(out, flush=True)  # noqa: T201
        except BrokenPipeError:  # `tlfeat layers ... | head`: the reader has seen enough
            _leave_closed_pipes()
            self.is_quiet = True


class Progress:
    """Shows what takes longer than a second: a bar on a terminal, a plain line now and then elsewhere.

    A context manager and an `OnProgress`.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self.is_shown = is_shown
        self._what = ""
        self._started_s = 0.0
        self._first_done = 0
        self._last_plain_s = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.is_shown:
            return
        now_s = time.monotonic()
        if self._what and what.partition(" (")[0] == self._what.partition(" (")[0]:
            self._what = what  # what stands in brackets may change on the way
        if what != self._what:
            self.hide()
            self._what, self._started_s, self._first_done, self._last_plain_s = what, now_s, done, now_s
            if not total and not sys.stderr.isatty():
                _to_stderr(what)
        if (not total and sys.stderr.isatty()) or now_s - self._started_s >= _SHOW_AFTER_S:
            if sys.stderr.isatty():
                self._show_bar(done, total)
            elif now_s - self._last_plain_s >= _PLAIN_EVERY_S:
                self._last_plain_s = now_s
                _to_stderr(self._line(done, total, now_s))

    def _line(self, done: int, total: int, now_s: float) -> str:
        elapsed_s = now_s - self._started_s
        if not total:
            return f"{self._what}: {elapsed_s:.0f} s"
        rate = (done - self._first_done) / elapsed_s
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        return f"{self._what}: {done:,} of {total:,}, {rate:,.1f}/s{left}"

    def _show_bar(self, done: int, total: int) -> None:
        from rich import console, progress

        if self._bar is None:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                console=console.Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=total or None, rate="")
        elapsed_s = time.monotonic() - self._started_s
        rate = f"{(done - self._first_done) / elapsed_s:,.1f}/s" if total else f"{elapsed_s:.0f} s"
        self._bar.update(self._task, description=self._what, completed=done, total=total or None, rate=rate)

    def hide(self) -> None:
        """Take the bar away until the next call."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


@contextlib.contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """End the process with the code and the one line that errors.py promises; bugs keep their traceback."""
    try:
        yield
    except TlfeatError as error:
        ready = f" Ready to run: {command_line(*sys.argv[1:], *error.add)}" if error.add else ""
        _to_stderr(f"error: {printable(str(error))}{printable(ready)}")
        raise SystemExit(error.exit_code) from None
    except MemoryError as error:
        raise _without_memory(error) from None
    except KeyboardInterrupt:
        raise _stopped() from None
    except BrokenPipeError:  # `tlfeat --help | head -1`
        if not _leave_closed_pipes():
            raise
        raise SystemExit(0) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _WORLD:
            raise _said(error) from None
        if any(words in str(error) for words in _WITHOUT_MEMORY):
            raise _without_memory(error) from None
        if not was_interrupted():  # a package's import that Ctrl-C broke off may raise anything
            raise
        raise _stopped() from None


def _without_memory(error: Exception) -> SystemExit:
    _to_stderr(f"error: there is not enough memory ({printable(one_line(str(error))) or 'no more could be had'}).")
    return SystemExit(DataError.exit_code)


def _said(error: OSError) -> SystemExit:
    """Say what the world outside refused: a disk, a right, the output itself."""
    is_output = _leave_streams_that_fail() and not error.filename
    where = "the output cannot be written: " if is_output else f"{error.filename}: " if error.filename else ""
    _to_stderr(f"error: {printable(one_line(where + (error.strerror or str(error))))}.")
    return SystemExit(DataError.exit_code)


def _stopped() -> SystemExit:
    _to_stderr("\nStopped. What was finished is kept; the same command goes on from there.")
    return SystemExit(INTERRUPTED_EXIT_CODE)


def command_line(*words: object) -> str:
    """Return a command of tlfeat, quoted for a shell."""
    return shlex.join(["tlfeat", *map(str, words)])


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Return what Typer takes as a command of `run`, a function of a `Console` and of its own options.

    A parameter whose type is a dataclass stands for the fields of it, an option each. ``--json``, ``-q`` and ``-v``
    are added here, so that every command has them.
    """
    _, *own = inspect.signature(run, eval_str=True).parameters.values()
    groups = {parameter.name: parameter.annotation for parameter in own if _is_group(parameter)}
    options = [option for parameter in own for option in (_fields(parameter) if _is_group(parameter) else [parameter])]
    common = {"as_json": JsonOption, "quiet": QuietOption, "verbose": VerboseOption}
    options += [Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=of) for name, of in common.items()]

    @functools.wraps(run)
    def run_with_console(*, as_json: bool, quiet: bool, verbose: bool, **values: Any) -> None:
        started_s = time.monotonic()
        given = list(values.items())
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        with Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose) as console:
            _check_no_urls(given)
            run(console, **values)
            console.detail(f"Time: {time.monotonic() - started_s:.1f} s")

    signature = inspect.Signature([option.replace(kind=Parameter.KEYWORD_ONLY) for option in options])
    run_with_console.__signature__ = signature  # type: ignore[attr-defined]
    run_with_console.__annotations__ = {option.name: option.annotation for option in options}
    return run_with_console


def _check_no_urls(given: Sequence[tuple[str, Any]]) -> None:
    """Refuse URLs for what is no image: as paths they would become folders called ``s3:``."""
    from tlfeat.images.urls import SCHEMES

    for name, value in given:
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and path.parts and path.parts[0].rstrip("\\/") in {f"{s}:" for s in SCHEMES}:
                raise UsageError(
                    f"{name.replace('_', '-')}: {path} is a URL. Images are read from there; all else is a file or a "
                    f"folder of this machine."
                )


def _is_group(parameter: Parameter) -> bool:
    return dataclasses.is_dataclass(parameter.annotation)


def _fields(parameter: Parameter) -> list[Parameter]:
    hints = get_type_hints(parameter.annotation, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(parameter.annotation)
    ]


def _to_stderr(text: str) -> None:
    """Print a line; where nobody reads stderr any more the work goes on in silence."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except BrokenPipeError:
        _leave_closed_pipes()
    except OSError:  # a full disk
        _leave_streams_that_fail()


def _leave_streams_that_fail() -> bool:
    """Lead stdout and stderr nowhere if what they hold cannot be written, as Python flushes both at its end."""
    has_failed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_nowhere(stream)
            has_failed = True
    return has_failed


def _leave_closed_pipes() -> bool:
    """Lead stdout and stderr nowhere if their reader is gone, as Python flushes both at its end; say if one was."""
    closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in closed:
        _lead_nowhere(stream)
    return bool(closed)


def _lead_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream, 0)
    except (AttributeError, io.UnsupportedOperation):  # Windows has no poll; a stream in memory is no pipe
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
