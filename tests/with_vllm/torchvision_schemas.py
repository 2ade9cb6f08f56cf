"""Lets a torchvision that was built for CUDA be imported beside a torch that was not.

`make test-vllm` copies this file into it as `sitecustomize.py`, so that every process that vLLM starts has it. Where
torchvision's compiled part cannot be loaded, its import fails over operators that nobody has declared. Two declarations
are enough, and nothing calls them here.
"""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                schemas = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    schemas.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys._torchvision_schemas = schemas  # as long as the process
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
