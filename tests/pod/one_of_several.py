"""One of several joined processes that count together: COORDINATOR COUNT INDEX WORK, a word that says what happens.

"count": they step until one is asked to stop. "fail": process 1 gives up. "late": process 1 is 35 s late at first.
"""

import sys
import time

import jax
import numpy as np

from mnet_jax.pod import members
from mnet_jax.runtime import StopSignal

coordinator, count, index, work = sys.argv[1:]
place = {"coordinator": coordinator, "num_processes": count, "process_id": index}


def explain(error):
    return (str(error), 2) if isinstance(error, ValueError) else None


with StopSignal() as signal:
    with members.joining(place, signal, "count", explain):
        pod = members.joined()
        print("agreed on", pod.agree(int(index) + 7), flush=True)
        if work == "fail" and index == "1":
            raise ValueError("there is nothing\nto count")
        total = jax.pmap(lambda x: jax.lax.psum(x, "all"), "all")
        if work == "late" and index == "1":
            time.sleep(35)
        pod.meet()
        for step in range(3 if work == "late" else 100_000):
            found = total(np.ones((jax.local_device_count(), 2), np.float32))
            signal.hold()
            assert np.asarray(found)[0, 0] == jax.device_count()
            print("step", step, flush=True)
            if pod.stops():
                print("stopped at", step, flush=True)
                signal.stopped = True
                break
            time.sleep(0.02)
    print("alone:", members.joined() is None, flush=True)
sys.exit(75 if signal.stopped else 0)
