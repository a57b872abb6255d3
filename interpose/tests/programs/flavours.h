// The kinds of mutex, by attributes, and their names in transcripts.
#ifndef FLAVOURS_H
#define FLAVOURS_H

#include "check.h"

#define NO_SETTYPE (-1)

struct flavour {
    int type; // a PTHREAD_MUTEX_* or NO_SETTYPE
    int pshared, robust, protocol;
};

static const int flavour_types[] = {NO_SETTYPE, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                                    PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
#define FLAVOUR_TYPES ((int)(sizeof flavour_types / sizeof flavour_types[0]))

__attribute__((unused)) static const char *type_name(int type)
{
    switch (type) {
    case NO_SETTYPE: return "default";
    case PTHREAD_MUTEX_NORMAL: return "normal";
    case PTHREAD_MUTEX_RECURSIVE: return "recursive";
    case PTHREAD_MUTEX_ERRORCHECK: return "errorcheck";
    case PTHREAD_MUTEX_ADAPTIVE_NP: return "adaptive";
    }
    return "?";
}

__attribute__((unused)) static const char *flavour_name(struct flavour f)
{
    static char text[96];
    snprintf(text, sizeof text, "%s%s%s%s", type_name(f.type), f.pshared ? "+pshared" : "",
             f.robust ? "+robust" : "",
             f.protocol == PTHREAD_PRIO_INHERIT   ? "+inherit"
             : f.protocol == PTHREAD_PRIO_PROTECT ? "+protect"
                                                  : "");
    return text;
}

// Fills the object with rubbish first: init owes nothing to what was there.
__attribute__((unused)) static int flavour_init(pthread_mutex_t *m, struct flavour f)
{
    pthread_mutexattr_t attr;
    OK(pthread_mutexattr_init(&attr));
    if (f.type != NO_SETTYPE)
        OK(pthread_mutexattr_settype(&attr, f.type));
    if (f.pshared)
        OK(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
    if (f.robust)
        OK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
    if (f.protocol)
        OK(pthread_mutexattr_setprotocol(&attr, f.protocol));
    memset(m, 0xaa, sizeof *m);
    int result = pthread_mutex_init(m, &attr);
    OK(pthread_mutexattr_destroy(&attr));
    return result;
}

__attribute__((unused)) static int is_delegated(struct flavour f)
{
    return f.robust || f.protocol;
}

// Kinds whose unlock looks at the owner.
__attribute__((unused)) static int checks_owner(struct flavour f)
{
    return f.type == PTHREAD_MUTEX_RECURSIVE || f.type == PTHREAD_MUTEX_ERRORCHECK || f.robust;
}

// Kinds that an owner may lock again without a deadlock.
__attribute__((unused)) static int relock_returns(struct flavour f)
{
    return f.type == PTHREAD_MUTEX_RECURSIVE || f.type == PTHREAD_MUTEX_ERRORCHECK;
}

// The five fields that glibc and we agree on, as one line. The owner is shown as who it is; of
// the word only what both sides promise: whether it is 0 and, where nobody has waited, 1.
__attribute__((unused)) static const char *fields_with(const char *lock, pthread_mutex_t *m,
                                                       pid_t self)
{
    static char text[160];
    int owner = m->__data.__owner;
    snprintf(text, sizeof text, "lock=%s count=%u owner=%s nusers=%u kind=%#x", lock,
             m->__data.__count, owner == 0 ? "none" : owner == self ? "self" : "other",
             m->__data.__nusers, (unsigned)m->__data.__kind);
    return text;
}

__attribute__((unused)) static const char *fields(pthread_mutex_t *m, pid_t self)
{
    unsigned w = (unsigned)word(m);
    return fields_with(w == 0 ? "0" : w == 1 ? "1" : "contended", m, self);
}

// After somebody waited in vain the word may be 1 or more, as the lock likes.
__attribute__((unused)) static const char *fields_after_waits(pthread_mutex_t *m, pid_t self)
{
    return fields_with(word(m) ? "held" : "0", m, self);
}

#endif
