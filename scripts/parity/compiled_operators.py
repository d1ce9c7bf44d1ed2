"""Stands in for mmcv._ext, which mmcv-lite leaves out: every operator exists, and calling one says that it is absent."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_args, **_kwargs):
        raise RuntimeError(f"the compiled mmcv operator {name} is not part of this environment")

    return absent
