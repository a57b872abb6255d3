/* The few of glibc's atomic macros that the tests use, on the compiler's builtins. */
#ifndef AUTOLOCK_GLIBC_SUITE_ATOMIC_H
#define AUTOLOCK_GLIBC_SUITE_ATOMIC_H
#define atomic_load_relaxed(mem) __atomic_load_n ((mem), __ATOMIC_RELAXED)
#define atomic_load_acquire(mem) __atomic_load_n ((mem), __ATOMIC_ACQUIRE)
#define atomic_store_relaxed(mem, val) __atomic_store_n ((mem), (val), __ATOMIC_RELAXED)
#define atomic_store_release(mem, val) __atomic_store_n ((mem), (val), __ATOMIC_RELEASE)
#define atomic_fetch_add_acq_rel(mem, val) __atomic_fetch_add ((mem), (val), __ATOMIC_ACQ_REL)
#define atomic_fetch_add_relaxed(mem, val) __atomic_fetch_add ((mem), (val), __ATOMIC_RELAXED)
#define atomic_increment(mem) ((void) __atomic_add_fetch ((mem), 1, __ATOMIC_SEQ_CST))
#define atomic_decrement(mem) ((void) __atomic_sub_fetch ((mem), 1, __ATOMIC_SEQ_CST))
#endif
