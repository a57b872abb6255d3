// What signal handling looks like to a program: run with and without the profiler, it must print the same.
//
// Watched are SIGINT, SIGTERM and, where AUTOLOCK_PROFILE_SIGNAL=USR2, SIGUSR2; SIGUSR1 is there for comparison. Each scenario
// runs in a child of fork that uses a mutex first, so that it has something to print (AUTOLOCK_PROFILE_FILE=none saves some hundred files).
// Tables go to stderr. SIGUSR2's default action is left out: the profiler's is to print and go on.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// The old functions are what this is about.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

extern __sighandler_t bsd_signal(int, __sighandler_t);
extern __sighandler_t __sysv_signal(int, __sighandler_t);
extern int __sigaction(int, const struct sigaction *, struct sigaction *);

static char **arguments;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (write(1, text, (size_t)length) != length)
        _exit(9);
}

#define CHECK(condition)                                                 \
    do {                                                                 \
        if (!(condition)) {                                              \
            say("line %d: not so: %s (%s)\n", __LINE__, #condition,      \
                strerrorname_np(errno));                                 \
            _exit(1);                                                    \
        }                                                                \
    } while (0)

static const char *name(int signal) { return sigabbrev_np(signal); }

static void simple(int signal);
static void informed(int signal, siginfo_t *info, void *context);
static void other(int signal) { say("    other handler of %s\n", name(signal)); }

static const char *what(const void *handler)
{
    if (handler == (void *)SIG_DFL) return "default";
    if (handler == (void *)SIG_IGN) return "ignore";
    if (handler == (void *)2) return "hold";
    if (handler == (void *)-1) return "error";
    if (handler == (void *)simple) return "simple";
    if (handler == (void *)informed) return "informed";
    if (handler == (void *)other) return "other";
    return "UNKNOWN";
}

static void show_mask(const char *title, const sigset_t *set)
{
    say("%s", title);
    for (int signal = 1; signal < 65; signal++)
        if (sigismember(set, signal) == 1)
            say(" %d", signal);
    say("\n");
}

static void show_action(int signal)
{
    struct sigaction action;
    CHECK(sigaction(signal, NULL, &action) == 0);
    say("  %s: %s flags %#x restorer %s", name(signal), what((void *)action.sa_handler),
        (unsigned)action.sa_flags, action.sa_restorer ? "yes" : "no");
    show_mask(" mask", &action.sa_mask);
}

static int depth;
static atomic_int runs;

static void in_handler(int signal)
{
    int error = errno;
    stack_t stack;
    sigset_t mask;
    sigaltstack(NULL, &stack);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    say("    in %s, errno %d, %s stack", name(signal), error, stack.ss_flags & SS_ONSTACK ? "alternate" : "usual");
    show_mask(" blocked", &mask);
    runs++;
    // Again from inside: at once with SA_NODEFER, after the return without.
    if (depth++ == 0 && !(sigismember(&mask, SIGUSR2) && signal == SIGUSR2)) {
        struct sigaction action;
        sigaction(signal, NULL, &action);
        if (action.sa_handler != SIG_DFL)
            raise(signal);
        say("    raised again\n");
    }
    errno = 77;
}

static void simple(int signal) { in_handler(signal); }

static void informed(int signal, siginfo_t *info, void *context)
{
    say("    code %d, own %d, context %s\n", info->si_code, info->si_pid == getpid(), context ? "yes" : "no");
    in_handler(signal);
}

static void end_of(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        say("  died of %s%s\n", name(WTERMSIG(status)), WCOREDUMP(status) ? " (core)" : "");
    else
        say("  exited with %d\n", WEXITSTATUS(status));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((noinline)) static pid_t begin(void)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
    return child;
}

#define IN_CHILD                                    \
    for (pid_t child_ = begin(); child_ >= 0;       \
         child_ ? (end_of(child_), child_ = -1)     \
                : (_exit(0), -1))                   \
        if (child_ == 0)

static char alternate[65536];

static void with_alternate_stack(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK(sigaltstack(&stack, NULL) == 0);
}

static void flags_of(int signal)
{
    static const int bits[] = {SA_SIGINFO, SA_RESTART, SA_ONSTACK, SA_NODEFER, SA_RESETHAND, 0x400, SA_NOCLDSTOP};
    for (unsigned subset = 0; subset < 1u << 7; subset++) {
        int flags = 0;
        for (unsigned bit = 0; bit < 7; bit++)
            if (subset & 1u << bit)
                flags |= bits[bit];
        IN_CHILD {
            say("%s with %#x\n", name(signal), (unsigned)flags);
            with_alternate_stack();
            struct sigaction action = {.sa_flags = flags}, old;
            if (flags & SA_SIGINFO)
                action.sa_sigaction = informed;
            else
                action.sa_handler = simple;
            sigaddset(&action.sa_mask, SIGWINCH);
            sigaddset(&action.sa_mask, SIGKILL);
            if (subset & 1)
                sigaddset(&action.sa_mask, SIGUSR1);
            CHECK(sigaction(signal, &action, &old) == 0);
            say("  before: %s flags %#x restorer %s", what((void *)old.sa_handler), (unsigned)old.sa_flags,
                old.sa_restorer ? "yes" : "no");
            show_mask(" mask", &old.sa_mask);
            show_action(signal);
            errno = 55;
            raise(signal);
            say("  errno %d, ran %d\n", errno, runs);
            show_action(signal);
            // Back to what was, and again.
            CHECK(__sigaction(signal, &old, &action) == 0);
            show_action(signal);
        }
    }
}

static void setters_of(int number)
{
    static const struct {
        const char *name;
        __sighandler_t (*set)(int, __sighandler_t);
    } setters[] = {
        {"signal", signal},           {"bsd_signal", bsd_signal},       {"ssignal", ssignal},
        {"sysv_signal", sysv_signal}, {"__sysv_signal", __sysv_signal}, {"sigset", sigset},
    };
    for (unsigned i = 0; i < sizeof setters / sizeof *setters; i++) {
        IN_CHILD {
            say("%s for %s\n", setters[i].name, name(number));
            say("  returned %s\n", what((void *)setters[i].set(number, simple)));
            show_action(number);
            say("  returned %s\n", what((void *)setters[i].set(number, other)));
            raise(number);
            show_action(number);
            say("  returned %s\n", what((void *)setters[i].set(number, SIG_IGN)));
            raise(number);
            show_action(number);
            say("  returned %s\n", what((void *)setters[i].set(number, SIG_DFL)));
            show_action(number);
            errno = 0;
            say("  returned %s", what((void *)setters[i].set(number, SIG_ERR)));
            say(" errno %d\n", errno);
            show_action(number);
            CHECK(siginterrupt(number, 1) == 0);
            say("  returned %s\n", what((void *)setters[i].set(number, simple)));
            show_action(number);
            CHECK(siginterrupt(number, 0) == 0);
            show_action(number);
            say("  returned %s\n", what((void *)setters[i].set(number, other)));
            show_action(number);
            CHECK(sigignore(number) == 0);
            show_action(number);
        }
    }
    IN_CHILD {
        say("SIG_HOLD for %s\n", name(number));
        sigset_t mask;
        say("  returned %s\n", what((void *)sigset(number, simple)));
        say("  returned %s\n", what((void *)sigset(number, SIG_HOLD)));
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        show_mask("  blocked", &mask);
        say("  returned %s\n", what((void *)sigset(number, SIG_HOLD)));
        raise(number);
        say("  returned %s\n", what((void *)sigset(number, other)));
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        show_mask("  blocked", &mask);
    }
}

static void *raiser(void *signal)
{
    raise((int)(intptr_t)signal);
    return NULL;
}

static void deaths_by(int number)
{
    static const char *const ways[] = {
        "inherited default", "default set again", "kill", "in a thread", "blocked, then not",
        "second of SA_RESETHAND", "default set in the handler", "from another process",
    };
    for (int way = 0; way < 8; way++) {
        IN_CHILD {
            say("death by %s: %s\n", name(number), ways[way]);
            struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NODEFER};
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, number);
            switch (way) {
            case 1:
                signal(number, simple);
                sigaction(number, &action, NULL);
                raise(number);
                break;
            case 2:
                kill(getpid(), number);
                break;
            case 3: {
                pthread_t thread;
                pthread_create(&thread, NULL, raiser, (void *)(intptr_t)number);
                pthread_join(thread, NULL);
                break;
            }
            case 4:
                sigprocmask(SIG_BLOCK, &set, NULL);
                raise(number);
                say("  pending\n");
                sigprocmask(SIG_UNBLOCK, &set, NULL);
                break;
            case 5:
                action.sa_handler = other;
                action.sa_flags = SA_RESETHAND;
                sigaction(number, &action, NULL);
                raise(number);
                raise(number);
                break;
            case 6:
                signal(number, other);
                raise(number);
                signal(number, SIG_DFL);
                raise(number);
                break;
            case 7: {
                pid_t self = getpid();
                pid_t killer = fork();
                if (killer == 0) {
                    kill(self, number);
                    _exit(0);
                }
                for (;;)
                    pause();
            }
            default:
                raise(number);
            }
            say("  lives on\n");
        }
    }
}

static void inheritance(int number)
{
    static const char *const kinds[] = {"ignore", "default", "handler"};
    for (int kind = 0; kind < 3; kind++) {
        IN_CHILD {
            say("%s over exec: %s\n", name(number), kinds[kind]);
            signal(number, kind == 0 ? SIG_IGN : kind == 1 ? SIG_DFL : simple);
            char text[16];
            snprintf(text, sizeof text, "%d", number);
            execl("/proc/self/exe", arguments[0], "inherited", text, kind == 0 ? "raise" : "look", (char *)NULL);
        }
    }
    IN_CHILD {
        say("%s in a child of fork\n", name(number));
        signal(number, other);
        IN_CHILD {
            show_action(number);
            raise(number);
        }
    }
}

static void vforked(int number)
{
    IN_CHILD {
        say("%s in a child of vfork\n", name(number));
        signal(number, other);
        pid_t child = vfork();
        if (child == 0) {
            // More than the standards allow, and what programs do.
            struct sigaction action = {.sa_handler = SIG_IGN}, old;
            sigaction(number, NULL, &old);
            CHECK(old.sa_handler == other);
            raise(number);
            sigaction(number, &action, &old);
            CHECK(old.sa_handler == other);
            sigaction(number, NULL, &old);
            CHECK(old.sa_handler == SIG_IGN);
            raise(number);
            _exit(3);
        }
        end_of(child);
        show_action(number);
        raise(number);
        struct sigaction once = {.sa_handler = other, .sa_flags = SA_RESETHAND};
        sigaction(number, &once, NULL);
        child = vfork();
        if (child == 0) {
            raise(number);
            struct sigaction old;
            sigaction(number, NULL, &old);
            CHECK(old.sa_handler == SIG_DFL);
            if (number != SIGUSR2)
                raise(number);
            _exit(4);
        }
        end_of(child);
        show_action(number);
        raise(number);
        signal(number, SIG_DFL);
        show_action(number);
        if (number != SIGUSR2) {
            child = vfork();
            if (child == 0) {
                raise(number);
                _exit(5);
            }
            end_of(child);
        }
    }
}

static sigjmp_buf back;

static void jumper(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static void leaver(int signal)
{
    (void)signal;
    pthread_exit((void *)7);
}

static void *left(void *signal)
{
    raise((int)(intptr_t)signal);
    return (void *)8;
}

static void ways_out(int number)
{
    IN_CHILD {
        say("jumps out of %s's handler\n", name(number));
        signal(number, jumper);
        volatile int jumps = 0;
        if (sigsetjmp(back, 1))
            jumps++;
        if (jumps < 20)
            raise(number);
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        say("  %d", jumps);
        show_mask(" blocked", &mask);
    }
    IN_CHILD {
        say("pthread_exit in %s's handler\n", name(number));
        signal(number, leaver);
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, left, (void *)(intptr_t)number);
        pthread_join(thread, &result);
        say("  %ld\n", (long)result);
    }
    IN_CHILD {
        say("_exit in %s's handler\n", name(number));
        signal(number, _exit);
        raise(number);
    }
    IN_CHILD {
        say("sigsuspend, sigwait and signalfd for %s\n", name(number));
        struct sigaction action = {.sa_handler = simple};
        sigaddset(&action.sa_mask, SIGWINCH);
        sigaction(number, &action, NULL);
        sigset_t set, rest;
        sigemptyset(&set);
        sigaddset(&set, number);
        sigaddset(&set, SIGHUP);
        sigprocmask(SIG_BLOCK, &set, NULL);
        depth = 1;
        raise(number);
        sigemptyset(&rest);
        sigaddset(&rest, SIGPIPE);
        errno = 0;
        sigsuspend(&rest);
        say("  errno %d\n", errno);
        sigprocmask(SIG_SETMASK, NULL, &rest);
        show_mask("  blocked", &rest);
        raise(number);
        int got = 0;
        sigwait(&set, &got);
        say("  waited for %s\n", name(got));
        int descriptor = signalfd(-1, &set, 0);
        raise(number);
        struct signalfd_siginfo info;
        CHECK(read(descriptor, &info, sizeof info) == sizeof info);
        say("  read %s\n", name((int)info.ssi_signo));
    }
}

static int ends[2];

static void writer(int signal)
{
    (void)signal;
    if (write(ends[1], "x", 1) != 1)
        _exit(9);
}

// Whether the process is in read(2) from this descriptor.
static int is_reading(pid_t process, int descriptor)
{
    char path[64], text[128] = "";
    snprintf(path, sizeof path, "/proc/%d/syscall", process);
    FILE *file = fopen(path, "r");
    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
    }
    long number;
    unsigned long first;
    return sscanf(text, "%ld %lx", &number, &first) == 2 && number == SYS_read && (int)first == descriptor;
}

static void restarts(int number)
{
    for (int restart = 0; restart < 2; restart++) {
        IN_CHILD {
            say("read interrupted by %s, %s\n", name(number), restart ? "SA_RESTART" : "no SA_RESTART");
            struct sigaction action = {.sa_handler = writer, .sa_flags = restart ? SA_RESTART : 0};
            sigaction(number, &action, NULL);
            CHECK(pipe(ends) == 0);
            pid_t self = getpid(), child = fork();
            if (child == 0) {
                while (!is_reading(self, ends[0]))
                    usleep(1000);
                kill(self, number);
                _exit(0);
            }
            char byte;
            errno = 0;
            ssize_t length = read(ends[0], &byte, 1);
            say("  read %zd, errno %d\n", length, errno);
            end_of(child);
        }
    }
}

// Threads that change the action all the time, and signals meanwhile: each view is one that was set, whole.
static atomic_int wrong, over, delivered;

static void first_of_two(int signal)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (!sigismember(&mask, SIGWINCH) || !sigismember(&mask, signal))
        wrong++;
    delivered++;
}

static void second_of_two(int signal, siginfo_t *info, void *context)
{
    (void)context;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (!sigismember(&mask, SIGURG) || info->si_signo != signal)
        wrong++;
    delivered++;
    // A handler that changes the action itself.
    struct sigaction now;
    sigaction(signal, NULL, &now);
    if (now.sa_handler != first_of_two && now.sa_sigaction != second_of_two)
        wrong++;
}

static void make_one(int which, struct sigaction *action)
{
    memset(action, 0, sizeof *action);
    if (which == 0) {
        action->sa_handler = first_of_two;
        action->sa_flags = SA_RESTART;
        sigaddset(&action->sa_mask, SIGWINCH);
    } else {
        action->sa_sigaction = second_of_two;
        action->sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaddset(&action->sa_mask, SIGURG);
    }
}

static int is_whole(const struct sigaction *action)
{
    for (int which = 0; which < 2; which++) {
        struct sigaction one;
        make_one(which, &one);
        if (one.sa_handler == action->sa_handler)
            return (action->sa_flags & ~SA_RESTORER) == one.sa_flags
                && sigismember(&action->sa_mask, SIGWINCH) == (which == 0)
                && sigismember(&action->sa_mask, SIGURG) == (which == 1);
    }
    return 0;
}

static void *changer(void *number)
{
    for (int i = 0; i < 3000 || !delivered; i++) {
        struct sigaction one, old;
        make_one(i & 1, &one);
        if (sigaction((int)(intptr_t)number, &one, &old) != 0 || !is_whole(&old))
            wrong++;
    }
    return NULL;
}

static void *sender(void *number)
{
    while (!over)
        kill(getpid(), (int)(intptr_t)number);
    return NULL;
}

static void concurrent(int number)
{
    IN_CHILD {
        say("%s changed by four threads\n", name(number));
        struct sigaction one;
        make_one(0, &one);
        sigaction(number, &one, NULL);
        pthread_t changers[4], senders;
        pthread_create(&senders, NULL, sender, (void *)(intptr_t)number);
        for (int i = 0; i < 4; i++)
            pthread_create(&changers[i], NULL, changer, (void *)(intptr_t)number);
        for (int i = 0; i < 4; i++)
            pthread_join(changers[i], NULL);
        over = 1;
        pthread_join(senders, NULL);
        say("  wrong %d, delivered %s\n", wrong, delivered ? "some" : "none");
    }
    // One delivery alone runs a handler that is reset.
    atomic_int *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int once = 0;
    for (int round = 0; number != SIGUSR2 && round < 50; round++) {
        *count = 0;
        pid_t child = fork();
        if (child == 0) {
            extern void counts(int);
            extern atomic_int *counter;
            counter = count;
            struct sigaction action = {.sa_handler = counts, .sa_flags = SA_RESETHAND};
            sigaction(number, &action, NULL);
            pthread_t threads[3];
            for (int i = 0; i < 3; i++)
                pthread_create(&threads[i], NULL, raiser, (void *)(intptr_t)number);
            for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        // The second may die before the first has come to its handler.
        once += *count <= 1 && WIFSIGNALED(status) && WTERMSIG(status) == number;
    }
    if (number != SIGUSR2)
        say("%s reset for three threads: once in %d of 50\n", name(number), once);
}

atomic_int *counter;
void counts(int signal)
{
    (void)signal;
    ++*counter;
}

// The smallest alternate stack that programs use: a table must fit into it.
static void small_stack(int number)
{
    IN_CHILD {
        say("%s on 8 KiB\n", name(number));
        size_t page = 4096;
        char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(mprotect(memory, page, PROT_NONE) == 0);
        stack_t stack = {.ss_sp = memory + page, .ss_size = 2 * page};
        CHECK(sigaltstack(&stack, NULL) == 0);
        struct sigaction action = {.sa_handler = other, .sa_flags = SA_ONSTACK};
        sigaction(number, &action, NULL);
        raise(number);
        sigaction(number, NULL, &action);
        say("  still here\n");
    }
}

int main(int count, char **values)
{
    arguments = values;
    if (count == 4) {
        int number = atoi(values[2]);
        show_action(number);
        if (!strcmp(values[3], "raise"))
            raise(number);
        return 0;
    }
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR2, SIGUSR1};
    for (int i = 0; i < 4; i++) {
        int number = numbers[i];
        say("== %s\n", name(number));
        show_action(number);
        flags_of(number);
        setters_of(number);
        if (number != SIGUSR2)
            deaths_by(number);
        inheritance(number);
        vforked(number);
        ways_out(number);
        restarts(number);
        concurrent(number);
        small_stack(number);
    }
    errno = 0;
    say("no such signal: %d", sigaction(65, NULL, NULL));
    say(" %d", errno);
    struct sigaction action = {.sa_handler = SIG_IGN};
    say(" %d", sigaction(SIGKILL, &action, NULL));
    say(" %d", errno);
    say(" %d", sigaction(0, NULL, NULL));
    say(" %d\n", errno);
    return 0;
}
