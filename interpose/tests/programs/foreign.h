// Between foreign_preload.c and the programs that ask it.
#ifndef FOREIGN_H
#define FOREIGN_H

// How often libc itself has called the preload's functions.
struct libc_calls {
    int locks, unlocks, mtx_locks, mtx_unlocks;
};

#endif
