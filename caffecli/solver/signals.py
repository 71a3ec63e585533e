"""SIGINT, SIGHUP and SIGTERM ask a running solver to stop or to take a snapshot; the run decides when."""

from __future__ import annotations

import enum
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Action(enum.Enum):
    """What a signal asks for."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class Signals:
    """While entered, remembers SIGINT, SIGHUP and SIGTERM; ``requested()`` tells, once each, what they ask for.

    SIGTERM is what batch systems send before they kill: it stops the run, which Caffe does not wait for.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT) -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGTERM: Action.STOP}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup
        self._pending: list[Action] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(self._effects[signal.Signals(number)])

    def requested(self) -> Action:
        """The next action asked for; NONE when there is none."""
        while self._pending:
            action = self._pending.pop(0)
            if action is not Action.NONE:
                return action
        return Action.NONE
