"""train_step.py MODEL N: the whole train step of mmseg's model on the CPU."""

import sys

import side

name, n = sys.argv[1], int(sys.argv[2])
learner = side.learner(name)
side.report(seconds=side.timed(lambda: side.step(*learner), n))
