/* One-time allocation for glibc's support library, without glibc's private slow path. */
#ifndef AUTOLOCK_GLIBC_SUITE_ALLOCATE_ONCE_H
#define AUTOLOCK_GLIBC_SUITE_ALLOCATE_ONCE_H
#include <stddef.h>
#include <stdlib.h>

static inline void *
allocate_once (void **place, void *(*allocate) (void *closure),
               void (*deallocate) (void *closure, void *ptr), void *closure)
{
  void *seen = __atomic_load_n (place, __ATOMIC_ACQUIRE);
  if (seen != NULL)
    return seen;
  void *fresh = allocate (closure);
  if (fresh == NULL)
    return NULL;
  if (__atomic_compare_exchange_n (place, &seen, fresh, 0,
                                   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return fresh;
  if (deallocate == NULL)
    free (fresh);
  else
    deallocate (closure, fresh);
  return seen;
}
#endif
