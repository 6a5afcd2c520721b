"""A language model one of whose processes has something else than the other.

It is process 1, but for what only process 0 does.
"""

import os
import shutil
import signal
import sys
import time
from functools import partial

from experiments.frame import checkpoint, distributed
from experiments.frame.trainer import Trainer
from experiments.language_model import data
from experiments.language_model.__main__ import main

options = sys.argv[1:]
what = os.environ["DIFFERS"]


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


if options[-1].endswith(",0") and what == "pipe":
    sys.stdout = open(os.devnull, "w")

    def nobody_reads(_):
        raise BrokenPipeError

    sys.stdout.write = nobody_reads
if options[-1].endswith(",1"):
    if what == "folder":
        options[options.index("--out") + 1] += "-of-another-host/run"
        distributed.shared = partial(distributed.shared, seconds=2)
    if what == "signal":
        read = data.read

        def stopped(*args):
            terminate()
            return read(*args)

        data.read = stopped
    if what == "evaluation":
        evaluate = Trainer.evaluate

        def evaluates(self, stop):
            if self.step == 4:
                terminate()
            return evaluate(self, stop)

        Trainer.evaluate = evaluates
    if what == "option":
        options += ["--learning-rate", "0.5"]
    if what == "text":
        read = data.read
        data.read = lambda *args: read(*args)[:-1] + "?"
    if what == "disk":
        usage = shutil.disk_usage("/")
        checkpoint.shutil.disk_usage = lambda _: usage._replace(free=0)
    if what == "late":
        time.sleep(40)
    if what == "stuck":
        advance = Trainer.advance

        def sleeps(self):
            if self.step == 20:
                time.sleep(1000)
            return advance(self)

        Trainer.advance = sleeps
sys.exit(main(options))
