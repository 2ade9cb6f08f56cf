"""Files that import verl, and are no tests: where verl is not installed they cannot be looked at."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("verl") else ["verl_batch.py", "verl_cpu.py", "verl_worker.py"]
