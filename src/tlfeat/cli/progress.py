"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_SHOW_AFTER_S = 1.0

_PLAIN_EVERY_S = 10.0


class Progress:
    """Shows what takes longer than a second, with rate and time left; a context manager and an `OnProgress`."""

    def __init__(self, *, is_shown: bool = True) -> None:
        self.is_shown = is_shown
        self._what = ""
        self._started_s = 0.0
        self._first_done = 0
        self._last_plain_s = 0.0
        self._bar: object | None = None
        self._task: object | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.is_shown:
            return
        now_s = time.monotonic()
        if what != self._what:
            self._stop()
            self._what, self._started_s, self._first_done, self._last_plain_s = what, now_s, done, now_s
            if not total and not sys.stderr.isatty():
                print(what, file=sys.stderr, flush=True)  # noqa: T201
        if (not total and sys.stderr.isatty()) or now_s - self._started_s >= _SHOW_AFTER_S:
            if sys.stderr.isatty():
                self._show_bar(done, total)
            elif now_s - self._last_plain_s >= _PLAIN_EVERY_S:
                self._last_plain_s = now_s
                print(self._line(done, total, now_s), file=sys.stderr, flush=True)  # noqa: T201

    def _line(self, done: int, total: int, now_s: float) -> str:
        elapsed_s = now_s - self._started_s
        if not total:
            return f"{self._what}: {elapsed_s:.0f} s"
        rate = (done - self._first_done) / elapsed_s
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        return f"{self._what}: {done:,} of {total:,}, {rate:,.1f}/s{left}"

    def _show_bar(self, done: int, total: int) -> None:
        from rich import progress
        from rich.console import Console

        if self._bar is None:
            bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.start()
            self._bar, self._task = bar, bar.add_task(self._what, total=total or None, rate="")
        elapsed_s = time.monotonic() - self._started_s
        rate = f"{(done - self._first_done) / elapsed_s:,.1f}/s" if total else f"{elapsed_s:.0f} s"
        self._bar.update(self._task, completed=done, total=total or None, rate=rate)  # type: ignore[attr-defined]

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]
            self._bar = self._task = None
        self._what = ""
