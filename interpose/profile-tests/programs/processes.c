// Processes that multiply and change: each starts at zero and has a record of its own.
#include "truth.h"
#include <spawn.h>

extern char **environ;

static pthread_mutex_t everywhere = PTHREAD_MUTEX_INITIALIZER;
static int uses;

static void use(int times)
{
    for (int i = 0; i < times; i++) {
        OK(pthread_mutex_lock(&everywhere));
        uses++;
        OK(pthread_mutex_unlock(&everywhere));
    }
}

static void tell(const char *ending)
{
    truth("lock %p everywhere kind=mutex symbol=everywhere acquisitions=%d waits=0 failed=0", (void *)&everywhere, uses);
    truth("process ending=%s", ending);
}

static void fork_plain(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(10);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        uses = 0;
        use(3);
        tell("exit");
        exit(0);
    }
    reap(child);
    use(1);
    tell("exit");
}

// A child that never locks has nothing to say, and one that leaves by _exit says that.
static void fork_silent(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(5);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    reap(child);
    child = fork();
    if (child == 0) {
        uses = 0;
        use(2);
        tell("underscore-exit:0");
        _exit(0);
    }
    reap(child);
    tell("exit");
}

static void fork_twice(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(4);
    pid_t child = fork();
    if (child == 0) {
        uses = 0;
        use(7);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            uses = 0;
            use(9);
            tell("exit");
            exit(0);
        }
        reap(grandchild);
        tell("exit");
        exit(0);
    }
    reap(child);
    tell("exit");
}

static void fork_underscore(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(4);
    pid_t child = _Fork();
    if (child == 0) {
        uses = 0;
        use(6);
        tell("underscore-exit:0");
        _exit(0);
    }
    reap(child);
    use(1);
    tell("exit");
}

// A lock that is held across fork: the child may release it, and owes nothing for it.
static void fork_holding(int argc, char **argv)
{
    (void)argc, (void)argv;
    OK(pthread_mutex_lock(&everywhere));
    uses++;
    pid_t child = fork();
    if (child == 0) {
        OK(pthread_mutex_unlock(&everywhere));
        uses = 0;
        use(2);
        tell("exit");
        truth("process dropped=holds");
        exit(0);
    }
    reap(child);
    OK(pthread_mutex_unlock(&everywhere));
    tell("exit");
}

// Children of a process whose other threads never stop locking.
static int stop;
static long by_others;
static pthread_mutex_t theirs = PTHREAD_MUTEX_INITIALIZER;

static void *never_stops(void *unused)
{
    (void)unused;
    while (!LOAD(stop)) {
        OK(pthread_mutex_lock(&theirs));
        by_others++;
        OK(pthread_mutex_unlock(&theirs));
    }
    return NULL;
}

static void *uses_it(void *unused)
{
    (void)unused;
    use(5);
    return NULL;
}

static void fork_among_threads(int argc, char **argv)
{
    (void)argc, (void)argv;
    enum { CHILDREN = 20, OTHERS = 3 };
    pthread_t others[OTHERS];
    for (int i = 0; i < OTHERS; i++)
        others[i] = spawn(never_stops, NULL);
    for (int i = 0; i < CHILDREN; i++) {
        use(1);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            uses = 0;
            use(i + 1);
            join(spawn(uses_it, NULL));
            tell("exit");
            exit(0);
        }
        reap(child);
    }
    STORE(stop, 1);
    for (int i = 0; i < OTHERS; i++)
        join(others[i]);
    truth("lock %p theirs kind=mutex acquisitions=%ld", (void *)&theirs, by_others);
    tell("exit");
}

// argv[0] of what is executed: how it goes on.
static char self[4096];

static void where_am_i(void)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
}

static void execute_again(int argc, char **argv)
{
    int left = argc > 0 ? atoi(argv[0]) : 2;
    image = argc > 0 ? 4 - left : 1;
    use(10 + left);
    tell(left > 0 ? "none" : "exit");
    if (left == 0)
        return;
    where_am_i();
    char text[16];
    snprintf(text, sizeof text, "%d", left - 1);
    execl(self, self, "exec", text, (char *)NULL);
    FAIL("exec");
}

static void execute_first(int argc, char **argv)
{
    (void)argc, (void)argv;
    where_am_i();
    use(2);
    tell("none");
    execl(self, self, "exec", "2", (char *)NULL);
    FAIL("exec");
}

// An exec that fails leaves the process as it was.
static void execute_in_vain(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    CHECK(execl("/no/such/program", "x", (char *)NULL) == -1);
    CHECK(execvp("no-such-program-anywhere", (char *[]){"x", NULL}) == -1);
    use(4);
    tell("exit");
}

static void worker(int argc, char **argv)
{
    (void)argc;
    use(atoi(argv[0]));
    tell("exit");
}

static void vfork_and_spawn(int argc, char **argv)
{
    (void)argc, (void)argv;
    where_am_i();
    use(5);
    pid_t child = vfork();
    if (child == 0) {
        execl(self, self, "worker", "11", (char *)NULL);
        _exit(9);
    }
    CHECK(child > 0);
    reap(child);
    use(5);
    // One that fails to become anything: the parent's memory was only borrowed.
    child = vfork();
    if (child == 0) {
        execl("/no/such/program", "x", (char *)NULL);
        _exit(0);
    }
    reap(child);
    use(5);
    char *arguments[] = {self, "worker", "12", NULL};
    CHECK(posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0);
    reap(child);
    posix_spawnattr_t attr;
    sigset_t defaults;
    CHECK(posix_spawnattr_init(&attr) == 0);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGINT);
    CHECK(posix_spawnattr_setsigdefault(&attr, &defaults) == 0);
    CHECK(posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF) == 0);
    arguments[2] = "13";
    CHECK(posix_spawnp(&child, self, NULL, &attr, arguments, environ) == 0);
    reap(child);
    CHECK(system("exit 0") == 0);
    FILE *pipe = popen("echo through", "r");
    char line[32] = "";
    CHECK(pipe && fgets(line, sizeof line, pipe) && pclose(pipe) == 0);
    tell("exit");
}

// The parent is gone before the child locks for the first time.
static void orphaned(int argc, char **argv)
{
    (void)argc, (void)argv;
    int alive[2];
    char byte;
    CHECK(pipe(alive) == 0);
    use(2);
    pid_t child = fork();
    if (child == 0) {
        // A grandchild, whose parent leaves at once.
        pid_t grandchild = fork();
        if (grandchild != 0)
            _exit(0);
        uses = 0;
        use(8);
        tell("underscore-exit:0");
        _exit(0);
    }
    reap(child);
    // The end of the pipe is the grandchild's.
    close(alive[1]);
    CHECK(read(alive[0], &byte, 1) == 0);
    tell("exit");
}

static const struct named_mode modes[] = {
    {"fork", fork_plain},
    {"silent", fork_silent},
    {"twice", fork_twice},
    {"underscore", fork_underscore},
    {"holding", fork_holding},
    {"among-threads", fork_among_threads},
    {"exec", execute_again},
    {"exec-first", execute_first},
    {"exec-in-vain", execute_in_vain},
    {"worker", worker},
    {"vfork-spawn", vfork_and_spawn},
    {"orphaned", orphaned},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
