"""The processes of one run: how they find each other, what they tell each other, and how all leave when one does.

jax joins them and moves the numbers. Beside that each has a thread that says once a second, in the key-value store of
jax's service, that its process is alive, and reads what the others have said: that one leaves and why, or that one was
asked to stop. The first process looks after the pulses of all others, and they look after its service.
docs/reliability.md says what a user sees of it.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from mnet_jax.pod.place import TOGETHER, Place, find
from mnet_jax.pod.relay import Relay
from mnet_jax.runtime import STOPPED, StopSignal, settle_libtpu

SILENCE = 25.0  # seconds without a pulse after which a process is taken for gone
_PERIOD = 1.0  # seconds between two pulses
_MOST_TEXT = 300  # letters of an error that nobody expected
_FOREVER = 7 * 24 * 3600 * 1000  # ms: what is waited for is alive, or all leave
_PULSE, _SAID = "mnet/pulse/", "mnet/said/"  # directories of the store
_LEFT, _STOP, _TICK = f"{_SAID}left", f"{_SAID}stop", f"{_SAID}tick/"

_pod: "Pod | None" = None


def joined() -> "Pod | None":
    """Returns the processes that this one has joined; None where it is alone."""
    return _pod


@contextlib.contextmanager
def joining(
    given: Mapping[str, str | None],
    signal: StopSignal,
    name: str,
    explain: Callable[[BaseException], tuple[str, int] | None],
) -> Iterator[None]:
    """Joins the other processes of a run, if there are any, and leaves together with them.

    Enter it before anything else touches jax. Where there are others an error inside ends the process here, once they
    have been told: as Python ends jax would wait for them.

    Args:
      given: the flags of `find`.
      signal: of this process.
      name: what the command is called in messages.
      explain: from an error to its line and exit code; None where its traceback is to be shown.

    Raises:
      ValueError: if it is not said which they are, or they do not come.
    """
    global _pod
    settle_libtpu()
    place = find(given, os.environ)
    if place is None:
        yield
        return
    _pod = Pod(place, signal, name, explain)
    with leaving():
        yield
        _pod.finish()
    _pod = None


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends this process, and with it all others, where an error comes up inside; does nothing where it is alone.

    For what waits for the others as it closes, as checkpoints do: they would never come.
    """
    try:
        yield
    except BaseException as error:
        if _pod is not None:
            _pod.fail(error)
        raise


class Pod:
    """This process among those of its run."""

    def __init__(
        self,
        place: Place,
        signal: StopSignal,
        name: str,
        explain: Callable[[BaseException], tuple[str, int] | None],
    ):
        """Waits for all of them.

        Raises:
          ValueError: if they do not come.
        """
        import jax
        from jax._src import distributed

        self.index, self.count = place.process_id, place.num_processes
        self._name, self._explain, self._signal, self._over = name, explain, signal, threading.Event()
        self._period = max(_PERIOD, self.count / 100)  # the first process answers some hundred calls a second
        self._leaving, self._ticking = threading.Lock(), threading.Condition()
        self._ticks, self._last_tick, self._stopping = 0, None, False
        self._numbers = itertools.count()
        self._relay = Relay(place.coordinator, TOGETHER, self._service_ended) if self.index else None
        jax.config.update("jax_enable_preemption_service", False)  # a handler of SIGTERM in place of the signal's
        try:
            jax.distributed.initialize(
                self._relay.address if self._relay else place.coordinator,
                self.count,
                self.index,
                local_device_ids=place.local_devices,
                cluster_detection_method="deactivate",
                initialization_timeout=TOGETHER,
            )
        except (RuntimeError, jax.errors.JaxRuntimeError) as error:
            raise ValueError(
                f"process {self.index} of {self.count} did not find the others at {place.coordinator} within "
                f"{TOGETHER} s: start all of them, with the same address ({str(error).splitlines()[0]})"
            ) from error
        self._client = distributed.global_state.client
        self._heard = self._looked = time.monotonic()
        self._pulses = {other: (None, self._heard) for other in range(self.count) if other != self.index}
        signal.on_leave = self._signalled
        for work in (self._talk, self._look_after_service):
            threading.Thread(target=work, name="pod", daemon=True).start()

    # --- What the run asks ---

    def agree(self, number: int) -> int:
        """Returns the number that the first process gives; call it in all of them."""
        key = f"mnet/agreed/{next(self._numbers)}"
        if self.index == 0:
            self._client.key_value_set(key, str(number))
            return number
        return int(self._client.blocking_key_value_get(key, _FOREVER))

    def meet(self) -> None:
        """Returns once all processes have called it: before what only some minutes of waiting are allowed for."""
        self._client.wait_at_barrier(f"mnet/met/{next(self._numbers)}", _FOREVER)

    def stops(self) -> bool:
        """Returns whether to stop here, because a process was asked to; the same on all of them.

        Call it in all processes at the same places, such as after each step. They go on to the place that the farthest
        of them may have begun when they heard of it.
        """
        with self._ticking:
            self._ticks += 1
            while self._stopping and self._last_tick is None:
                self._ticking.wait()
            return self._last_tick is not None and self._ticks >= self._last_tick

    def finish(self) -> None:
        """Leaves together with the others; the process goes on alone."""
        import jax

        self.meet()
        self._over.set()
        jax.distributed.shutdown()
        if self._relay:
            self._relay.close()

    def fail(self, error: BaseException) -> NoReturn:
        """Tells the others why this process ends, and ends it."""
        if not isinstance(error, ValueError | FloatingPointError | OSError | KeyboardInterrupt):
            self._over.wait(SILENCE + 3 * _PERIOD)  # if it comes of another one's end, that ends this one meanwhile
        explained = self._explain(error)
        reason, code = explained or (f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_TEXT]}", 1)
        self._announce(reason, code)
        if self._leaving.acquire(blocking=False):
            if explained is None:
                traceback.print_exception(error)
            else:
                print(f"{self._name}: {reason}", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            self._linger()
            os._exit(code)
        threading.Event().wait()  # another thread is about to end the process
        raise AssertionError

    # --- The threads ---

    def _talk(self) -> None:
        for pulse in itertools.count():
            with contextlib.suppress(Exception):  # no answer: `_look_after_service` sees to that
                self._client.key_value_set(f"{_PULSE}{self.index}", str(pulse), allow_overwrite=True)
                said = dict(self._client.key_value_dir_get(_SAID))
                self._heard = time.monotonic()
                if self._over.is_set():
                    return
                if _LEFT in said and _decoded(said[_LEFT])[0] != self.index:
                    self._leave(*_decoded(said[_LEFT]))
                if self._signal.asked and _STOP not in said:
                    self._client.key_value_set(_STOP, str(self.index), allow_overwrite=True)
                    continue
                if _STOP in said:
                    self._agree_on_tick(said)
                if self.index == 0:
                    self._look_after_others(dict(self._client.key_value_dir_get(_PULSE)))
            if self._over.wait(0.2 if self._stopping else self._period):
                return

    def _agree_on_tick(self, said: Mapping[str, str]) -> None:
        """Says the place that this process may already be on its way to; the farthest of all is where they stop."""
        with self._ticking:
            if not self._stopping:
                self._stopping = True
                self._client.key_value_set(f"{_TICK}{self.index}", str(self._ticks + 1))
                return
            ticks = [said.get(f"{_TICK}{other}") for other in range(self.count)]
            if self._last_tick is None and None not in ticks:
                self._last_tick = max(map(int, ticks))
                self._ticking.notify_all()

    def _look_after_others(self, pulses: Mapping[str, str]) -> None:
        now = time.monotonic()
        stood_still, self._looked = now - self._looked > SILENCE / 2, now  # this process itself
        for other, (last, since) in self._pulses.items():
            pulse = pulses.get(f"{_PULSE}{other}")
            if pulse != last or stood_still:
                self._pulses[other] = (pulse, now)
            elif now - since > SILENCE:
                self._announce(_GONE, STOPPED, other)
                self._leave(other, _GONE, STOPPED)

    def _look_after_service(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(_PERIOD):
            now = time.monotonic()
            if now - looked > SILENCE / 2:  # this process itself stood still
                self._heard = now
            elif now - self._heard > SILENCE:
                self._leave(0, _GONE, STOPPED)
            looked = now

    def _service_ended(self) -> None:
        if not self._over.wait(2 * _PERIOD):  # it ends with the run, too
            self._leave(0, "it ended without a word (killed, or out of memory)", STOPPED)

    # --- Leaving ---

    def _announce(self, reason: str, code: int, index: int | None = None) -> None:
        """Says why the run ends, unless somebody has; gives up where the service does not answer."""
        said = _encoded(self.index if index is None else index, reason, code)

        def tell() -> None:
            with contextlib.suppress(Exception):  # another was first
                self._client.key_value_set(_LEFT, said)

        teller = threading.Thread(target=tell, name="pod", daemon=True)
        teller.start()
        teller.join(5 * _PERIOD)

    def _signalled(self, why: str) -> None:
        """What `StopSignal` calls before it ends the process."""
        self._leaving.acquire(blocking=False)
        self._announce(why, STOPPED)
        self._linger()

    def _leave(self, index: int, reason: str, code: int) -> None:
        """Ends this process because of another one."""
        if self._leaving.acquire(blocking=False):
            os.write(2, f"{self._name}: process {index} of this run ended it: {reason}\n".encode())
            self._linger()
            os._exit(code)

    def _linger(self) -> None:
        """Keeps the service of the first process until the others have heard why all leave."""
        if self.index == 0:
            time.sleep(3 * self._period)


_GONE = f"it has not been heard of for {SILENCE:.0f} s (killed, or its machine is gone or hangs)"


def _encoded(index: int, reason: str, code: int) -> str:
    return f"{index} {code} {' '.join(reason.split())}"


def _decoded(said: str) -> tuple[int, str, int]:
    index, code, reason = said.split(" ", 2)
    return int(index), reason, int(code)
