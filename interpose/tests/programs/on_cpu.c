// Property: a program that gets autolockd's table at its start keeps it, and only it, whatever becomes of the program and of the table. The program
// writes the table itself (a file, mapped writable), so it decides what the library is told. In each phase threads wait for mutexes whose holder the table
// calls running, or not, and the table beats or is stale; the statistics at the end tell what the library was told, and whether it believed it.
// Arguments: the table, then any of
//   running, off         waits; the table beats and says this of the holder
//   stale-running, stale-off     the same, but the table does not beat
//   fork                 goes on in a child, which ends as this process would have ended
//   exec                 starts this program anew with the remaining arguments
//   nobody               gives up all privileges
//   chroot               sees nothing but the table's folder from now on
//   new-root FOLDER      sees nothing but FOLDER, and starts this program anew there; its folders are those of the outer system
//   filter               starts this program anew under a filter that kills it when it makes a socket
// Exits with 77 where this is not permitted.
// Catches: a descriptor left open, an errno left behind by the search for the daemon, a mapping that does not survive fork, a table that is believed for ever or never
// again, a connection where a filter may forbid it.
#include "check.h"
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { RUNNING = 1, NOT_RUNNING = 2, HEADER_SIZE = 4096, TABLE_SIZE = 4 << 20, WAITS = 20 };

struct table {
    uint64_t magic;
    uint32_t version, padding;
    uint64_t heartbeat;
};

static char *table_bytes;
static int beats;
static pthread_mutex_t *contended;
static pid_t waiter_tid;

// No phase takes longer than a table is believed: a wait is over in milliseconds, and each begins with this.
static void beat(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct table *table = (void *)table_bytes;
    STORE(table->heartbeat, beats ? now.tv_sec * 1000000000ull + now.tv_nsec : 0);
}

static void set(pid_t thread, char state)
{
    CHECK(thread > 0 && thread < TABLE_SIZE - HEADER_SIZE);
    int in_page = thread % 4096;
    int place = thread - in_page + in_page % 32 * 128 + in_page / 32;
    STORE(table_bytes[HEADER_SIZE + place], state);
}

static void *waiter(void *arg)
{
    (void)arg;
    set(tid(), RUNNING);
    beat();
    STORE(waiter_tid, tid());
    errno = 4242;
    OK(pthread_mutex_lock(contended));
    OK(pthread_mutex_unlock(contended));
    CHECK(errno == 4242);
    return NULL;
}

static void wait_for(char holders_state)
{
    for (int i = 0; i < WAITS; i++) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        contended = &mutex;
        waiter_tid = 0;
        set(tid(), holders_state);
        OK(pthread_mutex_lock(&mutex));
        pthread_t thread = spawn(waiter, NULL);
        WAIT_UNTIL(LOAD(waiter_tid));
        // It has asked by now: it is about to sleep, or asleep.
        WAIT_UNTIL(is_contended(&mutex));
        OK(pthread_mutex_unlock(&mutex));
        join(thread);
    }
}

// The standard streams, no socket, no table, nothing of /proc. (Pipes of whoever runs the tests may be inherited.)
static void check_descriptors(const char *table)
{
    struct stat of_table = {0}, of_proc = {0}, found;
    stat(table, &of_table);
    stat("/proc/self/status", &of_proc);
    for (int fd = 0; fd < 3; fd++)
        CHECK(fcntl(fd, F_GETFD) >= 0);
    for (int fd = 0; fd < 256; fd++)
        if (fstat(fd, &found) == 0 &&
            (S_ISSOCK(found.st_mode) || found.st_dev == of_proc.st_dev ||
             (found.st_dev == of_table.st_dev && found.st_ino == of_table.st_ino)))
            FAIL("descriptor %d is open: mode %o, inode %lu", fd, found.st_mode, (long)found.st_ino);
}

static void not_permitted(const char *what)
{
    dprintf(2, "%s is not permitted: %s\n", what, strerror(errno));
    _exit(77);
}

static void anew(char *program, char *table, char **rest)
{
    char *arguments[32] = {program, table};
    for (int i = 0; rest[i]; i++) {
        CHECK(i < 29);
        arguments[i + 2] = rest[i];
    }
    execv(program, arguments);
    FAIL("exec %s: %s", program, strerror(errno));
}

#define KILL(number)                                             \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),         \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static void filter(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL(SYS_socket),
        KILL(SYS_connect),
        KILL(SYS_recvmsg),
        KILL(SYS_prctl),
        KILL(SYS_seccomp),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

int main(int argc, char **argv)
{
    int errno_of_start = errno;
    check_start();
    CHECK(errno_of_start == 0);
    CHECK(argc > 1);
    check_descriptors(argv[1]);
    char self[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0 || strcpy(self, argv[0]));
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        table_bytes = mmap(NULL, TABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(table_bytes != MAP_FAILED && close(fd) == 0);
    } else {
        // In another root: nobody reads this one.
        table_bytes = calloc(1, TABLE_SIZE);
        CHECK(table_bytes);
    }
    for (char **step = argv + 2; *step; step++) {
        beats = strncmp(*step, "stale-", 6) != 0;
        beat();
        const char *what = *step + (beats ? 0 : 6);
        if (!strcmp(what, "running")) {
            wait_for(RUNNING);
        } else if (!strcmp(what, "off")) {
            wait_for(NOT_RUNNING);
        } else if (!strcmp(what, "fork")) {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child > 0) {
                int status;
                CHECK(waitpid(child, &status, 0) == child);
                CHECK(WIFEXITED(status));
                _exit(WEXITSTATUS(status));
            }
        } else if (!strcmp(what, "exec")) {
            anew(self, argv[1], step + 1);
        } else if (!strcmp(what, "nobody")) {
            if (geteuid() != 0 || setgroups(0, NULL) || setgid(65534) || setuid(65534))
                not_permitted("to become nobody");
            CHECK(setuid(0) != 0);
            CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        } else if (!strcmp(what, "chroot") || !strcmp(what, "new-root")) {
            int is_new = *what == 'n';
            char *folder = strdup(is_new ? *++step : argv[1]);
            if (!is_new)
                *strrchr(folder, '/') = 0;
            if (chroot(folder) || chdir("/"))
                not_permitted("chroot");
            if (is_new)
                anew(self, argv[1], step + 1);
        } else if (!strcmp(what, "filter")) {
            filter();
            anew(self, argv[1], step + 1);
        } else {
            FAIL("what is %s?", *step);
        }
        check_descriptors(argv[1]);
    }
    return 0;
}
