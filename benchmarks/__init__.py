"""What the training passes cost, beside what others run: `python -m benchmarks.training_passes --help`."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory would write a line at every turn
