"""ranks.py N: two ranks of torch's DistributedDataParallel over Gloo, PSPNet-R18, 2x3x128x128 and one thread a rank."""

import os
import socket
import sys

import side


def work(rank, port, n):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model, optimizer, images, samples = side.learner("pspnet_r18", batch=2)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    seconds = side.timed(lambda: side.step(model, optimizer, images, samples, forward=parallel), n)
    if rank == 0:
        side.report(seconds=seconds)
    dist.destroy_process_group()


if __name__ == "__main__":
    import torch.multiprocessing as mp

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, int(sys.argv[1])), nprocs=2)
