"""Makes mmengine_sgd.pth, mmengine_adamw.pth and mmengine_ema.pth, checkpoints of mmengine 0.10.7's own runner on a model of a few numbers, and
trainings.json: what torch's optimizers make of the weights in further steps from there.

Run with mmengine and torch installed: python integration-tests/golden/trainings.py
"""

import json
import math
import os
import tempfile

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 3

CASES = {
    # A frozen convolution is counted by this optimizer.
    "sgd": dict(
        optim_wrapper=dict(
            type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01)
        ),
        param_scheduler=[
            dict(type="PolyLR", eta_min=1e-3, power=0.9, begin=0, end=20, by_epoch=False)
        ],
    ),
    # With paramwise_cfg each parameter is a group of its own, and frozen ones are left out.
    "adamw": dict(
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=0.01, betas=(0.9, 0.99), weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"head": dict(lr_mult=10.0)}),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, begin=0, end=3, by_epoch=False),
            dict(type="PolyLR", eta_min=0.0, power=1.0, begin=3, end=20, by_epoch=False),
        ],
    ),
    # Averages of the weights, which mmengine saves in the weights' place.
    "ema": dict(
        optim_wrapper=dict(
            type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01)
        ),
        param_scheduler=[
            dict(type="PolyLR", eta_min=1e-3, power=0.9, begin=0, end=20, by_epoch=False)
        ],
        custom_hooks=[dict(type="EMAHook", momentum=0.25)],
    ),
}


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1, bias=False)
        self.stem.weight.requires_grad = False
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Conv2d(2, 3, 1)

    def forward(self, inputs, mode="tensor"):
        return dict(loss=self.head(self.norm(self.stem(inputs))).square().mean())

    def train_step(self, data, optim_wrapper):
        losses = self(
            torch.stack(data["inputs"]) if isinstance(data["inputs"], list) else data["inputs"]
        )
        optim_wrapper.update_params(losses["loss"])
        return losses


def grad(name, param, step):
    """The formula of `src/runner/mmengine.rs`."""
    start = sum(name.encode())
    values = [
        math.cos(0.7 * step + 0.1 * start + 1.3 * place) / (1 + step)
        for place in range(param.numel())
    ]
    return torch.tensor(values, dtype=torch.float32).view(param.shape)


def main():
    torch.manual_seed(1)
    images = [dict(inputs=torch.randn(1, 4, 4)) for _ in range(40)]
    golden = {}
    for name, case in CASES.items():
        torch.manual_seed(2)
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner(
                model=Model(),
                work_dir=folder,
                train_dataloader=dict(
                    dataset=images,
                    batch_size=2,
                    num_workers=0,
                    sampler=dict(type="InfiniteSampler", shuffle=True),
                    collate_fn=dict(type="default_collate"),
                ),
                train_cfg=dict(type="IterBasedTrainLoop", max_iters=6),
                default_hooks=dict(
                    logger=dict(type="LoggerHook", interval=1),
                    checkpoint=dict(type="CheckpointHook", interval=6, by_epoch=False),
                ),
                default_scope="mmengine",
                experiment_name=name,
                randomness=dict(seed=11),
                log_level="ERROR",
                **case,
            )
            runner.message_hub.update_info("best_score", 12.5)
            runner.message_hub.update_info(
                "best_ckpt", os.path.join(folder, "best_mIoU_iter_4.pth")
            )
            runner.train()
            trained = {
                key: param.detach().flatten().tolist()
                for key, param in runner.model.named_parameters()
            }
            path = os.path.join(folder, "iter_6.pth")
            checkpoint = torch.load(path, weights_only=False)
            if name == "adamw":
                # What AmpOptimWrapper, which wants a GPU, adds to it.
                scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=4)
                scaler.load_state_dict(dict(scaler.state_dict(), scale=1024.0, _growth_tracker=3))
                checkpoint["optimizer"]["loss_scaler"] = scaler.state_dict()
            torch.save(checkpoint, os.path.join(HERE, f"mmengine_{name}.pth"))
        optimizer = runner.optim_wrapper.optimizer
        rates = [group["lr"] for group in optimizer.param_groups]
        for step in range(STEPS):
            for key, param in runner.model.named_parameters():
                param.grad = grad(key, param, step) if param.requires_grad else None
            optimizer.step()
        after = {
            key: param.detach().flatten().tolist() for key, param in runner.model.named_parameters()
        }
        golden[name] = dict(rates=rates, after=after, trained=trained)
    with open(os.path.join(HERE, "trainings.json"), "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
