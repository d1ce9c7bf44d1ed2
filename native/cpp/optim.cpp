// Optimizer steps over lists of tensors, as ATen's foreach kernels.
#include "guard.h"
