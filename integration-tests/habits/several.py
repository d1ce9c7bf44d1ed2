# Datasets beside each other and over again, an optimizer with its own rules, and a wrapper without a type.
_base_ = ['./child.py']
part = dict(
    type='BaseSegDataset', data_root='DATA', metainfo=_base_.metainfo, reduce_zero_label=True,
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'), pipeline=_base_.train_pipeline)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='ConcatDataset',
        datasets=[part, dict(type='RepeatDataset', times=2, dataset=dict(indices=4, **part))]))
optim_wrapper = dict(
    _delete_=True, optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01), accumulative_counts=2,
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., custom_keys={'decode_head': dict(lr_mult=10.)}))
val_cfg = dict(_delete_=True)
model = dict(
    decode_head=dict(loss_decode=[
        dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=1.0, avg_non_ignore=True),
        dict(type='DiceLoss', loss_name='loss_dice', loss_weight=3.0)]),
    auxiliary_head=[
        dict(type='FCNHead', in_channels=64 * 2 ** i, in_index=i, channels=8, num_convs=1, num_classes=6, norm_cfg=dict(type='BN'),
             loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)) for i in (1, 2)])
