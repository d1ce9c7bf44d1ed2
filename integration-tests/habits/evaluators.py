# Two evaluators beside each other, told apart by prefixes; single mappings where lists may stand, and the reverse.
_base_ = ['child.py']
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU'], prefix='all'),
    dict(type='mmseg.IoUMetric', iou_metrics=['mDice'], prefix='dice', beta=1),
]
test_evaluator = val_evaluator
param_scheduler = dict(_delete_=True, type='mmengine.PolyLR', eta_min=0.0001, power=0.9, begin=0, end=4, by_epoch=False)
visualizer = dict(
    _delete_=True, type='mmseg.SegLocalVisualizer', name='visualizer',
    vis_backends=[dict(type='mmengine.LocalVisBackend'), dict(type='TensorboardVisBackend')])
default_hooks = dict(checkpoint=dict(save_best='all/mIoU', rule='greater'))
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1, begin_iter=2)]
auto_scale_lr = dict(enable=True, base_batch_size=2)
