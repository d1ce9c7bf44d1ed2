# The registries' names in front of types, and keys of every kind that mean nothing here.
_base_ = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg.models', 'mmpretrain.models'], allow_failed_imports=False)
sync_bn = None
compile = dict(backend='inductor') if False else False
resume = None
norm_cfg = dict(type='mmcv.BN' if False else 'BN', requires_grad=True)
model = dict(
    type='mmseg.EncoderDecoder', pretrained=None, data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size=(32, 32)),
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(type='mmseg.PSPHead', channels=16, pool_scales=(1, 2), num_classes=6, norm_cfg=norm_cfg),
    auxiliary_head=dict(type='mmseg.FCNHead', channels=16, num_classes=6, norm_cfg=norm_cfg))
pipeline = [
    dict(type='mmcv.LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='mmcv.Resize', scale=(32, 32), keep_ratio=False), dict(type='mmseg.PackSegInputs')]
test_pipeline = [pipeline[0], *pipeline[2:3], pipeline[1], pipeline[3]]
metainfo = dict(classes=list('abcdef'), palette=[[i, i, i] for i in range(6)])
dataset = dict(
    type='mmseg.BaseSegDataset', data_root='DATA', metainfo=metainfo, reduce_zero_label=True,
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'), pipeline=pipeline)
train_dataloader = dict(num_workers=1, sampler=dict(type='mmengine.InfiniteSampler'), dataset=dict(_delete_=True, **dataset))
val_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **{**dataset, 'pipeline': test_pipeline}))
test_dataloader = val_dataloader
optim_wrapper = dict(type='mmengine.OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
train_cfg = dict(type='mmengine.IterBasedTrainLoop', max_iters=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
