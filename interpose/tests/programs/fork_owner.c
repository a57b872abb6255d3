// Property: in a fork child the owner of a mutex is judged as glibc judges it. What the forking
// thread held belongs to the parent's thread; what the child locks belongs to the child; the
// parent is untouched. By fork, _Fork, vfork and a bare clone system call, from the main thread and
// from another one.
// Transcript: equal with and without the preload.
// Catches: a cached thread id that the child inherits, or one that a vfork child spoils for its
// parent (BREAK_STALE_TID).
#include "flavours.h"
#include <sys/wait.h>

static pid_t by_fork(void) { return fork(); }
static pid_t by_under_fork(void) { return _Fork(); }
// glibc knows nothing of this one: its own idea of the thread's id stays the parent's, and ours
// must be the same, for the two share the owner field.
static pid_t by_clone(void) { return (pid_t)syscall(SYS_clone, 17 /* SIGCHLD */, 0, 0, 0, 0); }

static const struct {
    const char *name;
    pid_t (*call)(void);
} ways[] = {{"fork", by_fork}, {"_Fork", by_under_fork}, {"clone", by_clone}};

static pthread_mutex_t held, idle;

static void line(const char *who, const char *what, int result, pthread_mutex_t *m)
{
    int owner = m->__data.__owner;
    say("    %-7s %-34s %-8s lock=%d count=%u owner=%s nusers=%u", who, what, err(result),
        !!word(m), m->__data.__count,
        owner == 0         ? "none"
        : owner == tid()     ? "caller"
        : owner == getppid() ? "parent"
                             : "another",
        m->__data.__nusers);
}

static void use(const char *who, pthread_mutex_t *m)
{
    struct timespec past = {1, 0};
    line(who, "lock", pthread_mutex_lock(m), m);
    line(who, "trylock", pthread_mutex_trylock(m), m);
    line(who, "timedlock", pthread_mutex_timedlock(m, &past), m);
    while (m->__data.__count > 1)
        OK(pthread_mutex_unlock(m));
    line(who, "unlock", pthread_mutex_unlock(m), m);
    line(who, "unlock once more", pthread_mutex_unlock(m), m);
}

static void child_side(void)
{
    struct timespec past = {1, 0};
    line("child", "finds held", 0, &held);
    line("child", "trylock held", pthread_mutex_trylock(&held), &held);
    line("child", "timedlock held", pthread_mutex_timedlock(&held, &past), &held);
    line("child", "unlock held", pthread_mutex_unlock(&held), &held);
    line("child", "destroy held", pthread_mutex_destroy(&held), &held);
    use("child", &idle);
    OK(pthread_mutex_init(&held, NULL));
    use("child", &idle);
}

static void script(int type)
{
    struct flavour f = {.type = type};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        say("  %s by %s", type_name(type), ways[w].name);
        OK(flavour_init(&held, f));
        OK(flavour_init(&idle, f));
        OK(pthread_mutex_lock(&held));
        pid_t child = ways[w].call();
        CHECK(child >= 0);
        if (child == 0) {
            child_side();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        say("    child's status %#x", (unsigned)status);
        line("parent", "still holds", 0, &held);
        line("parent", "unlock", pthread_mutex_unlock(&held), &held);
        use("parent", &idle);
    }
}

// A vfork child runs on its parent's memory: whatever it does there stays.
static void script_vfork(void)
{
    OK(flavour_init(&idle, (struct flavour){.type = PTHREAD_MUTEX_ERRORCHECK}));
    say("  vfork");
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
        pthread_mutex_lock(&idle);
        pthread_mutex_unlock(&idle);
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    say("    child's status %#x", (unsigned)status);
    use("parent", &idle);
}

static void *scripts(void *where)
{
    say("%s", (const char *)where);
    script(PTHREAD_MUTEX_ERRORCHECK);
    script(PTHREAD_MUTEX_RECURSIVE);
    // Of a NORMAL mutex nobody asks for the owner; the field must still be right.
    OK(pthread_mutex_init(&idle, NULL));
    OK(pthread_mutex_lock(&idle));
    pid_t child = fork();
    if (child == 0) {
        line("child", "normal unlock", pthread_mutex_unlock(&idle), &idle);
        line("child", "normal lock", pthread_mutex_lock(&idle), &idle);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    line("parent", "normal unlock", pthread_mutex_unlock(&idle), &idle);
    script_vfork();
    return NULL;
}

int main(void)
{
    check_start();
    scripts("main thread, alone");
    join(spawn(scripts, "another thread"));
    scripts("main thread, after there were threads");
    return 0;
}
