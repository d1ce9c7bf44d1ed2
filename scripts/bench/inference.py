"""inference.py FOLDER: mmseg's test loop over the 100 made images, decoding and metric included."""

import sys
import time

import side


def main():
    import peer  # noqa: F401  (registers mmseg)
    from mmengine.config import Config
    from mmengine.runner import Runner

    config = Config.fromfile(f"{sys.argv[1]}/test.py")
    config.work_dir = f"{sys.argv[1]}/work"
    config.load_from = f"{sys.argv[1]}/checkpoint.pth"
    config.log_level = "ERROR"
    runner = Runner.from_cfg(config)
    start = time.perf_counter()
    metrics = runner.test()
    seconds = time.perf_counter() - start
    side.report(images=100, wall=seconds, metrics={k: float(v) for k, v in metrics.items()})


main()
