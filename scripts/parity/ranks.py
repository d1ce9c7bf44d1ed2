"""What two ranks of torch's DistributedDataParallel over Gloo make of mmseg's model: each rank's losses, and the averaged gradients."""

import os

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import peer

STEPS = 3
SIZE = (81, 97)


class Learner(torch.nn.Module):
    """DistributedDataParallel only sees calls of forward, so the loss is one."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pictures, labels):
        data = self.model.data_preprocessor(peer.packed(pictures, labels), True)
        total, log = self.model.parse_losses(self.model(**data, mode="loss"))
        return total, log


def batches():
    rng = np.random.default_rng(501)
    return [
        [
            (
                [peer.image(*SIZE, rng) for _ in range(2)],
                [peer.label_map(*SIZE, 19, rng) for _ in range(2)],
            )
            for _ in range(2)
        ]
        for _ in range(STEPS)
    ]


def work(rank, config):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PARITY_PORT"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = peer.build(config)
    model.load_state_dict(torch.load("checkpoint.pth", weights_only=False)["state_dict"])
    learner = torch.nn.parallel.DistributedDataParallel(Learner(model).train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    curve = []
    for step, made in enumerate(batches()):
        total, log = learner(*made[rank])
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            peer.write_tensors(
                f"gradients.{rank}.safetensors", {n: p.grad for n, p in model.named_parameters()}
            )
        optimizer.step()
        curve.append({key: float(value) for key, value in log.items()})
    peer.write_json(f"losses.{rank}.json", curve)
    dist.destroy_process_group()


def spread(config):
    """How far the gradients of the whole batch move, relative to each one's norm, when its pixels change by 1e-7: in double
    precision, so that this is the function's doing (a few ReLUs flip), not that of anybody's arithmetic.
    """

    def gradients(noise):
        model = peer.build(config)
        model.load_state_dict(torch.load("checkpoint.pth", weights_only=False)["state_dict"])
        model.double().train()
        whole = batches()[0]
        data = model.data_preprocessor(
            peer.packed(whole[0][0] + whole[1][0], whole[0][1] + whole[1][1]), True
        )
        inputs = data["inputs"].double()
        inputs = inputs * (1 + noise * torch.randn_like(inputs))
        total, _ = model.parse_losses(
            model(inputs=inputs, data_samples=data["data_samples"], mode="loss")
        )
        return torch.autograd.grad(total, list(model.parameters()))

    peer.seed(502)
    exact = gradients(0.0)
    return max(
        float((moved - true).norm() / true.norm())
        for _ in range(4)
        for moved, true in zip(gradients(1e-7), exact)
    )


def main():
    config = peer.segmentor("psp", 18, 19)
    config["data_preprocessor"]["size"] = list(SIZE)
    peer.write_config("config.yaml", dict(model=config))
    peer.write_checkpoint("checkpoint.pth", peer.randomise(peer.build(config), 500), 19)
    tensors = {}
    for step, made in enumerate(batches()):
        for rank, (pictures, labels) in enumerate(made):
            for i in range(2):
                tensors[f"{step}.{rank}.image.{i}"], tensors[f"{step}.{rank}.label.{i}"] = (
                    pictures[i],
                    labels[i],
                )
    peer.write_tensors("batches.safetensors", tensors)
    # Whole batches of four in one process: what two ranks with SyncBN must equal (torch's SyncBN itself runs only on a GPU).
    model = peer.build(config)
    model.load_state_dict(torch.load("checkpoint.pth", weights_only=False)["state_dict"])
    whole = batches()[0]
    total, log = Learner(model).train()(whole[0][0] + whole[1][0], whole[0][1] + whole[1][1])
    total.backward()
    peer.write_json("losses.together.json", {key: float(value) for key, value in log.items()})
    peer.write_tensors(
        "gradients.together.safetensors", {n: p.grad for n, p in model.named_parameters()}
    )
    peer.write_tensors("buffers.together.safetensors", dict(model.named_buffers()))
    peer.write_json("spread.json", spread(config))
    with torch.multiprocessing.get_context("spawn").Manager():
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ["PARITY_PORT"] = str(free.getsockname()[1])
    mp.spawn(work, args=(config,), nprocs=2)


if __name__ == "__main__":
    main()
