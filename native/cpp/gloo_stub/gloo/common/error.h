// Nothing of this header is named by c10d's.
#pragma once
