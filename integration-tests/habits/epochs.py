# Epochs, a warm-up, averaged weights, and a stop when nothing improves.
_base_ = './child.py'
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), batch_size=4)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0006, betas=(0.9, 0.999), weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1, eta_min=1e-6, by_epoch=True, begin=1, end=2, convert_to_iter_based=True, verbose=False),
]
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2, val_begin=1, val_interval=1)
custom_hooks = [
    dict(type='EMAHook', momentum=0.01, priority='ABOVE_NORMAL'),
    dict(type='EarlyStoppingHook', monitor='mIoU', patience=5, min_delta=0.005, rule='greater'),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=2, save_best='auto'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=True))
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(enable=False, base_batch_size=16)
