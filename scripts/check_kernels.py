"""check_kernels.py LIBTORCH: compiles segslurm's own CUDA kernels with that libtorch's NVRTC for cards of several generations.

No GPU is needed. A file of kernels is one C++ string literal, as native/cpp includes it."""

import ctypes
import glob
import os
import sys

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
found = [
    it
    for folder in (os.path.join(sys.argv[1], ".."), sys.argv[1])
    for it in glob.glob(os.path.join(folder, "nvidia/**/libnvrtc.so.*"), recursive=True)
]
if not found:
    sys.exit(f"no libnvrtc beside {sys.argv[1]}")
# NVRTC loads its own headers by name.
for builtins in glob.glob(os.path.join(os.path.dirname(found[0]), "libnvrtc-builtins.so.*")):
    ctypes.CDLL(builtins, mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(found[0])
failed = False
for path in sorted(glob.glob(os.path.join(root, "native/cpp/*.cu"))):
    text = open(path).read()
    source = text[text.index("(") + 1 : text.rindex(")")].encode()
    for architecture in (75, 80, 86, 90, 100):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source, os.path.basename(path).encode(), 0, None, None
        )
        options = (ctypes.c_char_p * 2)(
            f"--gpu-architecture=sm_{architecture}".encode(), b"--std=c++17"
        )
        code = nvrtc.nvrtcCompileProgram(program, 2, options)
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        print(
            f"{os.path.basename(path)} for sm_{architecture}: {'compiles' if code == 0 else 'does not compile'}"
        )
        if code != 0 or log.value.strip():
            print(log.value.decode())
        failed |= code != 0
sys.exit(failed)
