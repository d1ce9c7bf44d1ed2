"""startup.py MODEL: seconds from BENCH_STARTED (seconds since the epoch, set by who starts this) until the first step could begin."""

import os
import sys
import time

import side

learner = side.learner(sys.argv[1])
before = time.time() - float(os.environ["BENCH_STARTED"])
side.report(seconds=[before])
