"""verl on a CPU: it knows no such platform, so the tests give it one. To be imported before anything else of verl."""

from types import SimpleNamespace

import torch
from verl.plugin.platform import set_platform
from verl.plugin.platform.platform_cuda import PlatformCUDA


class Cpu(PlatformCUDA):
    """What verl asks of a device, answered for a CPU: its place, and that it has no memory of its own."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = SimpleNamespace(
        **{f"{most}memory_{how}": lambda: 0 for most in ("", "max_") for how in ("allocated", "reserved")},
        is_available=lambda: False,
        mem_get_info=lambda: (0, 0),
        current_device=lambda: "cpu",
        get_device_name=lambda: "CPU",
    )

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, index):
        pass

    def synchronize(self, index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def empty_cache(self):
        pass

    def communication_backend_name(self):
        return "gloo"


set_platform(Cpu())

from verl.workers.engine import EngineRegistry  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402

EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)
