# What a config computes: slices, conditions, loops in brackets, strings, methods of dicts and lists.
_base_ = ['./child.py']
side = int('32')
half = round(side / 2)
scales = [(max(side * r // 2, side), side) for r in range(1, 5) if r != 3]
use_clip = True
base_lr = 0.01 if use_clip else 0.02
stages = list(range(4))
head = dict(channels=16)
head.update(pool_scales=tuple(sorted({1: 'a', 2: 'b'}.keys())), dropout_ratio=min(0.1, 0.5))
model = dict(
    decode_head=dict(**head),
    backbone=dict(out_indices=tuple(stages[:4]), strides=(1, 2) + (1, ) * 2),
    auxiliary_head=dict(channels=abs(-half), **dict(zip(['num_convs', 'concat_input'], [1, False]))))
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=False),
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=base_lr, weight_decay=5e-4),
    clip_grad=dict(_delete_=True, max_norm=10., norm_type=2) if use_clip else None,
    paramwise_cfg=dict(custom_keys={f'{part}.bn': dict(decay_mult=0.) for part in ['decode_head', 'auxiliary_head']}))
work_dir = 'WORK/%s_%d' % ('computed', side)
