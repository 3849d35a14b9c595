"""An operator that the compiler may not look into.

It is registered with PyTorch once a process: a module that registers it again, reloaded say, takes it away from every
function that holds the first. So it lives apart from the adapter, which the planted faults run a second time.
"""

import torch
from torch import Tensor


@torch.library.custom_op("raremem::computed_before", mutates_args=())
def computed_before(content: Tensor) -> Tensor:
    """`content`, computed in whole before anything is written.

    Else the compiler may work it out row by row in the loop that writes the rows, and what it then reads from the same array
    is what an earlier row has written.
    """
    return content.clone()


@computed_before.register_fake
def _like(content: Tensor) -> Tensor:
    return torch.empty_like(content)
