"""Notes where a train stage's time goes until its first optimizer step. train_start_up.py puts this
folder on PYTHONPATH and names the file to write in TRAIN_START_UP; any other process is left alone.

Times are exclusive: a module imported while data are tokenised counts as import alone.
"""

import contextlib
import json
import os
import sys
import time
from typing import Any

PHASES = {
    "harness.modeling.load": {"load_tokenizer": "tokenizer", "load_model": "model"},
    "harness.train.data": {"load_data": "data: read, tokenise or take from the cache"},
    "harness.train.model": {"load": "model", "choose_path": "model: check of the packed path"},
    "harness.train.loop": {"train": "trainer"},
    "harness.train.objectives": {"loss_parts": "first step"},
}
"""Functions by module, and the phase that their own time belongs to."""


class Clock:
    def __init__(self) -> None:
        self.begun = self.last = time.time()
        self.spent: dict[str, float] = {}
        self.stack = ["other"]

    def enter(self, phase: str) -> None:
        self._book()
        self.stack.append(phase)

    def leave(self) -> None:
        self._book()
        self.stack.pop()

    def stepped(self, *_: Any) -> None:
        self._book()
        said = {"begun": self.begun, "ended": self.last, "spent": self.spent}
        with open(os.environ.pop("TRAIN_START_UP"), "w", encoding="utf-8") as file:
            json.dump(said, file)
        self.stepped = lambda *_: None  # type: ignore[method-assign]

    def _book(self) -> None:
        now = time.time()
        self.spent[self.stack[-1]] = self.spent.get(self.stack[-1], 0.0) + now - self.last
        self.last = now


class Finder:
    """Finds nothing itself: it puts the clock around what the other finders found."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        self.clock.enter("import")
        try:
            for finder in sys.meta_path:
                if finder is self or not hasattr(finder, "find_spec"):
                    continue
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    self._put_clock(name, spec)
                    return spec
            return None
        finally:
            self.clock.leave()

    def _put_clock(self, name: str, spec: Any) -> None:
        run = getattr(spec.loader, "exec_module", None)
        if run is None:
            return

        def timed(module: Any) -> None:
            self.clock.enter("import")
            try:
                run(module)
            finally:
                self.clock.leave()
            self._wrap(name, module)

        # A loader without attributes is left as it is: its time stays where it was called.
        with contextlib.suppress(AttributeError):
            spec.loader.exec_module = timed

    def _wrap(self, name: str, module: Any) -> None:
        for function, phase in PHASES.get(name, {}).items():
            if hasattr(module, function):
                setattr(module, function, self._timed(getattr(module, function), phase))
        if name == "torch.optim.optimizer":
            module.register_optimizer_step_post_hook(lambda *_: self.clock.stepped())

    def _timed(self, function: Any, phase: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.clock.enter(phase)
            try:
                return function(*args, **kwargs)
            finally:
                if phase != "first step":  # its backward pass and update follow
                    self.clock.leave()

        return timed


if os.environ.get("TRAIN_START_UP") and "harness.stage" in sys.orig_argv:
    sys.meta_path.insert(0, Finder(Clock()))
