"""A language model whose process 1 has something else than process 0, or less."""

import os
import shutil
import sys
import time

from experiments.frame import checkpoint
from experiments.frame.trainer import Trainer
from experiments.language_model import data
from experiments.language_model.__main__ import main

options = sys.argv[1:]
what = os.environ["DIFFERS"]
if options[-1].endswith(",1"):
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
