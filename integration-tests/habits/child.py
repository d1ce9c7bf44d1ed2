# A child of the family's base, for a dataset of its own; its bases are the shipped ones.
_base_ = ['../_base_/models/pspnet_r50-d8.py', '../_base_/datasets/ade20k.py', '../_base_/default_runtime.py',
          '../_base_/schedules/schedule_20k.py']
class_name = ('disc', 'box', 'triangle', 'ring', 'stripe', 'ground')
num_classes = len(class_name)
metainfo = dict(classes=class_name, palette=[[40 * i, 255 - 40 * i, 20 * i] for i in range(num_classes)])
crop_size = (32, 32)
data_preprocessor = dict(size=crop_size)
data_root = 'DATA'
model = dict(
    data_preprocessor=data_preprocessor, pretrained=None,
    backbone=dict(depth=18, norm_cfg=dict(type='BN')),
    decode_head=dict(in_channels=512, channels=32, pool_scales=(1, 2), num_classes=num_classes, norm_cfg=dict(type='BN')),
    auxiliary_head=dict(in_channels=256, channels=16, num_classes=num_classes, norm_cfg=dict(type='BN')))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(96, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=1,
    dataset=dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=True, pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=True,
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4, save_best='mIoU', max_keep_ckpts=1))
