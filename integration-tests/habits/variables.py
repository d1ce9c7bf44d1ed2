# Where the file lies, and the environment.
_base_ = ['./child.py']
work_dir = 'WORK/{{ fileBasenameNoExtension }}{{fileExtname}}'
load_from = None
randomness = dict(seed={{'$HABITS_SEED:7'}}, deterministic=False, diff_rank_seed=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters={{'$HABITS_ITERS:4'}}, val_interval=4)
experiment_name = '{{fileBasename}}'
