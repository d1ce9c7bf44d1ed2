// PyTorch's wheels carry c10d's headers but not gloo's. c10d only names the types below; libtorch_cpu.so holds the real ones.
#pragma once
