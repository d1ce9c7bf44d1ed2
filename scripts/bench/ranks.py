"""ranks.py N: a rank of torch's DistributedDataParallel over Gloo, PSPNet-R18, 2x3x128x128; RANK and the like say which."""

import sys

import side


def main():
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model, optimizer, images, samples = side.learner("pspnet_r18", batch=2)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    seconds = side.timed(
        lambda: side.step(model, optimizer, images, samples, forward=parallel), int(sys.argv[1])
    )
    side.report(seconds=seconds)
    dist.destroy_process_group()


main()
