# Every field of the hooks that people set.
_base_ = ['./child.py']
default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1, ignore_last=False, log_metric_by_epoch=False, interval_exp_name=1000),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=2, save_optimizer=False, save_param_scheduler=True, save_last=True,
        save_best=['mIoU', 'mFscore'], rule=['greater', 'greater'], max_keep_ckpts=3, filename_tmpl='step_{}.pth',
        published_keys=['meta', 'state_dict']),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook', draw=True, interval=1))
custom_hooks = None
val_evaluator = dict(iou_metrics=['mIoU', 'mFscore'], nan_to_num=0)
test_evaluator = val_evaluator
