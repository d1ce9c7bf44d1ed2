"""loader.py RECIPE FOLDER N: torch's data loader with two workers over mmseg's training transforms, as mmengine builds it."""

import sys
import time

import side
import transforms


def main():
    import cv2
    import peer
    from mmengine.runner import Runner

    recipe, root, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    loader = dict(
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        sampler=dict(type="InfiniteSampler", shuffle=True),
        dataset=transforms.dataset(recipe, root),
    )
    cv2.setNumThreads(0)  # As mmseg's configs set it: `mp_cfg.opencv_num_threads`.
    peer.seed(1)
    batches = iter(Runner.build_dataloader(loader, seed=1))
    for _ in range(2):
        next(batches)
    wall = time.perf_counter()
    for _ in range(n // 4):
        next(batches)
    side.report(images=n // 4 * 4, wall=time.perf_counter() - wall)


main()
