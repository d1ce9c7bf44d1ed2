// c10d: TCPStore, Gloo and (with USE_C10D_NCCL) NCCL.
#include "guard.h"
