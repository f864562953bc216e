// Whether products may go by tiles (tiles.h).
#include "tiles.h"

#ifdef HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern "C" {

// 1, or 0 where this processor, compiler or system has none. Asks the system for the right to use them.
int64_t tiles_ready() {
#ifdef HAS_TILES
  constexpr long ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
#else
  return 0;
#endif
}
}
