"""Tests against the real vLLM, on a CPU: `make test-vllm` has an environment for them. Left out where there is none."""

from importlib.util import find_spec

FOUND = find_spec("vllm")
collect_ignore = ["torchvision_schemas.py"]
collect_ignore_glob = [] if FOUND is not None and FOUND.origin is not None else ["test_*.py"]
